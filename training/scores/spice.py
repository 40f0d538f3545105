"""SPICE (arXiv:1607.08822): how many of the objects, attributes and relations of a caption its references have.

Its parser is a Java program that pycocoevalcap starts; where either is missing, a sentence says so.
"""

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence

INSTALL = "pip install --no-deps pycocoevalcap==1.2"


def spice_missing() -> str | None:
    """Why SPICE cannot be computed here; None where it can."""
    if not shutil.which("java"):
        return "SPICE needs Java, and no java is found. Install one (version 8, as its authors used)"
    if importlib.util.find_spec("pycocoevalcap") is None:
        return f"SPICE needs the package pycocoevalcap. Install it with: {INSTALL}"
    return None


def spice(answers: Sequence[str], references: Sequence[Sequence[str]]) -> list[float] | str:
    """F-score of each answer, or why there is none: the package fetches Stanford CoreNLP at its first use, and its program
    does not run on every Java."""
    if missing := spice_missing():
        return missing
    from pycocoevalcap.spice.spice import Spice

    names = [f"{place:09d}" for place in range(len(answers))]  # its scores come by the sorted names
    try:
        _, scores = Spice().compute_score(
            dict(zip(names, map(list, references), strict=True)),
            {name: [answer] for name, answer in zip(names, answers, strict=True)},
        )
    except (OSError, subprocess.CalledProcessError) as error:
        return f"SPICE's Java program or its parser could not be had: {error}"
    return [float(each["All"]["f"]) for each in scores]
