"""Pooled features of pictures whose noun is known -> the tagger's head, and the tags that training reads.

Unusual: the tags of a training picture come from a head that has never seen it (cross-fitting). A head's tags for its
own pictures are nearly always right, and a language model that learned from them would believe every tag.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.augmentation import picture_of
from training.data import Row
from training.features import FeatureStore
from training.resources import replace_with
from vlm.connectors import channel_statistics
from vlm.tagger import Tagger

FOLDS = 5
STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY, DROPOUT = 300, 256, 3e-3, 1e-3, 0.6
PHOTO_WEIGHT = 3.0  # a photograph is drawn this many times as often as a drawing: they are few, and what people ask about
ACCEPTED_SHARE = 0.3  # of a picture's target for its accepted nouns: "duck" for a mallard


def teach(
    tagger: Tagger, rows: Sequence[Row], store: FeatureStore, folder: Path, seed: int
) -> dict[str, str]:
    """Give the tagger a head for the nouns of `rows`, or leave it the one it has; returns the tags of all their
    pictures, for training.

    Both are kept in `folder`, so that a run that goes on has the same."""
    file = folder / "tags.json"
    if file.is_file():
        tagger.load(folder / "tagger.safetensors")
        return json.loads(file.read_text(encoding="utf-8"))
    named = [] if tagger.head else list({row.picture: row for row in rows if row.noun}.values())
    others = sorted({row.picture for row in rows} - {row.picture for row in named})
    tags: dict[str, str] = {}
    if named:
        nouns = sorted({row.noun.lower() for row in named})
        pooled = torch.stack([store[row.picture][0, : tagger.classifier.in_features] for row in named])
        targets, weights = _targets(named, nouns), _weights(named)
        folds = torch.tensor([_fold(row.picture) for row in named])
        for fold in range(FOLDS):
            unseen = folds == fold
            if unseen.any() and not unseen.all():
                tagger.set_head(fit(pooled[~unseen], targets[~unseen], weights[~unseen], seed), nouns)
                pictures = [
                    row.picture for row, held_out in zip(named, unseen.tolist(), strict=True) if held_out
                ]
                tags |= zip(pictures, tagger.tags(pooled[unseen]), strict=True)
        tagger.set_head(fit(pooled, targets, weights, seed), nouns)
    for picture in others:
        (tags[picture],) = tagger.tags(store[picture][:1])
    folder.mkdir(parents=True, exist_ok=True)
    tagger.save(folder / "tagger.safetensors")
    replace_with(file, json.dumps(tags, indent=0))  # whole or not at all: it is read when the run goes on
    return tags


def fit(pooled: Tensor, targets: Tensor, weights: Tensor, seed: int) -> nn.Linear:
    """Features [M, Dv], target shares [M, V] and drawing weights [M] -> a linear classifier [Dv] -> [V].

    Fitted to standardised features with dropout; the standardisation is folded into the weights."""
    mean, deviation = channel_statistics(pooled)
    standard = (pooled - mean) / deviation
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(pooled.shape[1], targets.shape[1])
    nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
    optimizer = torch.optim.AdamW(head.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        drawn = torch.multinomial(weights, BATCH, replacement=True, generator=generator)
        kept = torch.rand(BATCH, pooled.shape[1], generator=generator) >= DROPOUT
        scores = head(standard[drawn] * kept / (1 - DROPOUT))
        loss = functional.cross_entropy(scores, targets[drawn], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        head.weight /= deviation
        head.bias -= head.weight @ mean
    return head


def _targets(rows: Sequence[Row], nouns: Sequence[str]) -> Tensor:
    """[M, V]: most of each row for the noun itself, the rest for the other accepted ones."""
    places = {noun: place for place, noun in enumerate(nouns)}
    targets = torch.zeros(len(rows), len(nouns))
    for index, row in enumerate(rows):
        own = places[row.noun.lower()]
        others = {places[noun.lower()] for noun in row.accepted if noun.lower() in places} - {own}
        for place in others:
            targets[index, place] = ACCEPTED_SHARE / len(others)
        targets[index, own] = 1.0 - ACCEPTED_SHARE if others else 1.0
    return targets


def _weights(rows: Sequence[Row]) -> Tensor:
    return torch.tensor([PHOTO_WEIGHT if row.kind == "photo" else 1.0 for row in rows])


def _fold(picture: str) -> int:
    """Views of a picture are in its fold: a head that has seen one has seen them all."""
    return int(hashlib.sha256(picture_of(picture).encode()).hexdigest()[:8], 16) % FOLDS
