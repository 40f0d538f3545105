"""A result -> an entry of the adapter's metrics.json, from which the page's About tab makes its table."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.scores.measures import known
from training.scores.results import SHARES
from training.scores.selection import Options
from vlm.model.adapter_folder import read_metrics
from vlm.whole_files import write_json

KEPT = ("source", "split", "questions", *SHARES, "options")


def record(adapter: Path, result: Mapping[str, Any], command: str, goals: Sequence[Any] = ()) -> None:
    """Keep a result without its single answers and the groups' lesser measures; `goals` are its rows of a suite's table."""
    metrics = read_metrics(adapter)
    metrics[name_of(result)] = entry_of(result) | {"goals": list(goals), "command": command}
    write_json(metrics, adapter / "metrics.json")


def name_of(result: Mapping[str, Any]) -> str:
    """ "easy-vqa/test, 1000 drawn": source and split, and which options are not the usual ones."""
    asked, usual = result["options"], asdict(Options(result["source"], result["split"]))
    drawn = f", {asked['limit']} drawn" if asked["limit"] else ""
    changed = [
        f", {key} {asked[key]}"
        for key in usual
        if key not in ("source", "split", "limit", "thorough") and asked[key] != usual[key]
    ]
    return f"{result['source']}/{result['split']}{drawn}{''.join(changed)}"


def entry_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """Captions are neither right nor wrong: CIDEr stands in place of their shares, and "measure" says so."""
    entry = {name: result[name] for name in KEPT}
    entry["measure"] = "accuracy"
    if result["accuracy"] is None:
        entry["measure"] = "cider"
        for name in SHARES:
            metrics = result["metrics"] if name == "accuracy" else result["baselines"].get(name)
            entry[name] = _as_share(metrics["cider"]) if metrics else None
    entry["metrics"] = known(result["metrics"])
    entry["clean_up"] = {name: each for name, each in result["clean_up"].items() if name != "differences"}
    entry["by"] = {
        group: {
            name: {"n": each["n"], "accuracy": each["accuracy"]}
            for name, each in named.items()
            if each["accuracy"]
        }
        for group, named in result["by"].items()
    }
    return entry


def _as_share(measure: Mapping[str, Any]) -> dict[str, Any]:
    return {"share": measure["value"], "low": measure["low"], "high": measure["high"], "of": measure["of"]}


def given_command(module: str) -> str:
    """What was typed to start this process, whose module it is."""
    return f"python -m {module} {shlex.join(sys.argv[1:])}"
