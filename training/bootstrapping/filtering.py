"""An aligner trained on captions that a filter kept, beside one trained on all of them: what the filter is worth."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from training import align
from training.aligners.pairs import Captioned, read_pairs
from training.bootstrapping.bootstrapped import DROPPED, KEPT
from training.config import load_alignment_config
from training.scores.alignment import see
from training.scores.retrieval import retrieval
from vlm.errors import UserError
from vlm.model.aligner import Aligner
from vlm.model.alignment import load_aligner_model

WATCHED = 0.1  # share of the training pictures that is not trained on (AlignmentConfig.validation_share)


def compare_filtered(preset: str, data: Path, known: str, output: Path) -> dict[str, Any]:
    """A preset's aligner, which has the source `bootstrapped`, trained without it, with it, and with what was dropped
    beside it -> how well captions and pictures that none of them was trained on find each other."""
    config = load_alignment_config(preset, data=str(data))
    own = next((each for each in config.sources if each.name == KEPT), None)
    if own is None:
        raise UserError(
            f"The preset {preset!r} has no source {KEPT}. Add - {{name: {KEPT}, share: 1.0}} to a copy of it."
        )
    check_watched(config.validation_share, f"The preset {preset!r}")
    others = tuple(each for each in config.sources if each is not own)
    runs = {"without": others, "kept": (*others, own), "all": (*others, own, replace(own, name=DROPPED))}
    pictures = read_pairs(data, [known], WATCHED).validation
    found = {}
    for name, sources in runs.items():
        folder = align.run(replace(config, sources=sources, output=str(output / "compare" / name)))
        aligner = load_aligner_model(str(folder), "cuda" if torch.cuda.is_available() else "cpu")
        found[name] = search_scores(aligner, data, pictures)
    return found


def check_watched(share: float, whose: str) -> None:
    """What is measured on must not have been trained on: `share` of the pictures is held out. Raises UserError."""
    if share < WATCHED:
        raise UserError(
            f"{whose} trains on pictures that are measured on: its validation_share is {share:g}. Give one of {WATCHED} or "
            "more."
        )


def search_scores(aligner: Aligner, data: Path, pictures: Sequence[Captioned]) -> dict[str, float]:
    texts = [text for each in pictures for text in each.captions]
    owners = [place for place, each in enumerate(pictures) for _ in each.captions]
    with torch.no_grad():
        of_pictures, of_texts = see(aligner, data, pictures, texts, "train").embed(aligner)
    return retrieval(of_pictures, of_texts, owners)
