"""Pooled features of pictures whose noun is known -> the tagger's head, and the taggers whose tags training reads.

Unusual: the tags of a training picture come from a head that has never seen it (cross-fitting). A head's tags for its
own pictures are nearly always right, and a language model that learned from them would believe every tag.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.augmentation import picture_of
from training.data import Row
from training.features import FeatureStore
from vlm.connectors import channel_statistics
from vlm.tagger import Tagger

FOLDS = 5
WHOLE = "whole"  # the name of the tagger that the adapter gets
STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY, DROPOUT = 300, 256, 3e-3, 1e-3, 0.6
PHOTO_WEIGHT = 3.0  # a photograph is drawn this many times as often as a drawing: they are few, and what people ask about
ACCEPTED_SHARE = 0.3  # of a picture's target for its accepted nouns: "duck" for a mallard


def teach(
    tagger: Tagger, rows: Sequence[Row], store: FeatureStore, folder: Path, seed: int
) -> Callable[[str], Tagger]:
    """Give the tagger a head for the nouns of `rows`, or leave it the one it has; returns who names which picture.

    All heads are kept in `folder`, in half precision, and read from there, so that a run that goes on has the same."""
    named = list({row.picture: row for row in rows if row.noun}.values())
    heads = folder / "taggers"
    if not heads.is_dir():
        working = folder / "taggers.tmp"
        shutil.rmtree(working, ignore_errors=True)
        working.mkdir(parents=True)
        for name, fitted in _fit_taggers(tagger, named, store, seed):
            fitted.save(working / f"{name}.safetensors")
        working.rename(heads)  # all of them or none
    taggers = {file.stem: tagger.with_head(None, []) for file in heads.glob("*.safetensors")} | {
        WHOLE: tagger
    }
    for name, each in taggers.items():
        each.load(heads / f"{name}.safetensors")
    own = {row.picture for row in named}
    return lambda picture: taggers.get(_without(picture), tagger) if picture in own else tagger


def _fit_taggers(
    tagger: Tagger, rows: Sequence[Row], store: FeatureStore, seed: int
) -> Iterator[tuple[str, Tagger]]:
    """For each fold one that has not seen it, and one of all rows, unless the tagger has a head."""
    whole = tagger
    if rows:
        nouns = sorted({row.noun.lower() for row in rows})
        pooled = torch.stack([store[row.picture][0, : tagger.classifier.in_features] for row in rows])
        targets, weights = _targets(rows, nouns), _weights(rows)
        without = [_without(row.picture) for row in rows]
        for name in sorted(set(without)):
            seen = torch.tensor([each != name for each in without])
            if seen.any():
                head = fit(pooled[seen], targets[seen], weights[seen], seed)
                yield name, tagger.with_head(head, nouns)
        if not tagger.head:
            whole = tagger.with_head(fit(pooled, targets, weights, seed), nouns)
    yield WHOLE, whole


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


def _without(picture: str) -> str:
    """The head that has not seen a picture, nor a view of it: who has seen one has seen them all."""
    fold = int(hashlib.sha256(picture_of(picture).encode()).hexdigest()[:8], 16) % FOLDS
    return f"without-{fold}"
