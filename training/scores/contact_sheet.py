"""Answers -> those that are shown with their pictures on one sheet (training.report)."""

import random
from collections.abc import Sequence
from typing import Any

MAX_TILES = 40


def chosen(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most MAX_TILES of the items, wrong ones first, evenly taken where there are more captions than that."""
    judged = sorted((item for item in items if item["right"] is not None), key=lambda item: item["right"])
    captions = [item for item in items if item["right"] is None]
    left = max(1, MAX_TILES - len(judged))
    return [*judged, *captions[:: -(-len(captions) // left)]][:MAX_TILES] if captions else judged[:MAX_TILES]


def drawn(of_runs: Sequence[Sequence[dict[str, Any]]], seed: int = 0) -> list[dict[str, Any]]:
    """At most MAX_TILES items about photographs, as many of each run, drawn by chance, each of another picture."""
    photographs = [[item for item in items if item["kind"] == "photo"] for items in of_runs]
    found: dict[str, dict[str, Any]] = {}
    waiting = [random.Random(seed).sample(items, len(items)) for items in photographs if items]
    while len(found) < MAX_TILES and any(waiting):
        for items in waiting:
            if items and len(found) < MAX_TILES:
                item = items.pop()
                found.setdefault(item["picture"], item)
    return list(found.values())
