"""Pooled features of pictures whose nouns are known -> the tagger's head, and the tags that training reads.

The tags of a training picture come from a head that has never seen it (cross-fitting). A head's tags for its own pictures
are nearly always right, and a language model that learned from them would believe every tag.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from more_itertools import chunked
from torch import Tensor, nn
from torch.nn import functional

from training.data import Row
from training.data.augmentation import picture_id_of
from training.data.features import FeatureStore
from vlm.model.adapter_folder import TAGS_FILE
from vlm.model.standardise import channel_statistics
from vlm.model.tags import Tagger
from vlm.model.vlm import VisionLanguageModel
from vlm.whole_files import write_whole

log = logging.getLogger("training")

FOLDS = 5
STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY, DROPOUT = 600, 512, 3e-3, 1e-3, 0.6
PHOTO_WEIGHT = 3.0  # a photograph is drawn this many times as often as a drawing: it is what people ask about
ACCEPTED_SHARE = 0.3  # of a picture's target for its accepted nouns: "duck" for a mallard
FEWEST = 2  # pictures that show a noun, for a head to know it


def teach(tagger: Tagger, rows: Sequence[Row], store: FeatureStore, seed: int) -> dict[str, str]:
    """Give the tagger a head for the nouns of `rows`. Returns the tags of every picture in the store: those that have a
    noun in `rows`, and their views, are named by heads that have not seen them."""
    shown = nouns_of(rows)
    pictures, nouns = sorted(shown), known_nouns(shown)
    pooled = store.pooled(tagger)
    if not nouns:
        return dict(zip(pooled, tagger.tags(torch.stack(list(pooled.values()))), strict=True))
    features = torch.stack([pooled[picture] for picture in pictures])
    device = features.device
    targets, weights = _targets(pictures, shown, nouns).to(device), _weights(pictures, rows).to(device)
    folds = torch.tensor([fold_of(picture) for picture in pictures], device=device)
    heads = {
        fold: fit(features[folds != fold], targets[folds != fold], weights[folds != fold], seed)
        for fold in range(FOLDS)
    }
    if forgotten := set(tagger.nouns) - set(nouns):
        log.warning(
            "the tagger of the adapter that this run goes on from knew %d nouns, and %d of them are forgotten: its head is "
            "made anew, for the %d nouns of these data",
            len(tagger.nouns), len(forgotten), len(nouns),
        )  # fmt: skip
    tagger.set_head(fit(features, targets, weights, seed), nouns)
    without = {fold: tagger.with_head(head, nouns) for fold, head in heads.items()}
    tags: dict[str, str] = {}
    for chosen in [*range(FOLDS), None]:
        names = [
            name for name in pooled if (fold_of(name) if picture_id_of(name) in shown else None) == chosen
        ]
        if names:
            own = tagger if chosen is None else without[chosen]
            tags |= zip(names, own.tags(torch.stack([pooled[name] for name in names])), strict=True)
    return tags


def tags_of(
    model: VisionLanguageModel,
    rows: Sequence[Row],
    held_out: Sequence[Row],
    store: FeatureStore,
    output: Path,
    seed: int,
) -> dict[str, str]:
    """The tags of every picture, by a tagger that learns the nouns of `rows`; kept in the run's folder, so that a run
    that goes on has the same. `held_out` asks about the pictures that watch it, maybe only now that it goes on."""
    tagger = model.eyes.tagger
    if tagger is None:
        return {}
    kept, head = output / "tags.json", output / TAGS_FILE
    if not kept.is_file():
        output.mkdir(parents=True, exist_ok=True)
        tags = teach(tagger, rows, store, seed)
        tagger.save(head)
        write_whole(kept, json.dumps(tags))
    if head.is_file():
        tagger.load(head)
    tags = json.loads(kept.read_text(encoding="utf-8"))
    device = tagger.classifier.weight.device
    for names in chunked(sorted({row.picture for row in held_out} - tags.keys()), 256):
        features = torch.stack([store[name] for name in names]).float()
        tags |= zip(names, tagger.tags(tagger.pool(features.to(device))), strict=True)
    return tags


def nouns_of(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Picture -> the shares of its nouns: most for the noun itself, the rest for the other accepted ones; where several
    things are known to be in it, the same for each."""
    shown: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.noun and row.task == "name":
            others = {noun.lower() for noun in row.accepted} - {row.noun.lower()}
            shares = {noun: ACCEPTED_SHARE / len(others) for noun in others}
            shown[row.picture] = shares | {row.noun.lower(): 1.0 - ACCEPTED_SHARE * bool(others)}
        elif row.objects:
            shown.setdefault(row.picture, {name.lower(): 1.0 / len(row.objects) for name in row.objects})
    return shown


def known_nouns(shown: Mapping[str, Mapping[str, float]]) -> list[str]:
    counted: dict[str, int] = {}
    for shares in shown.values():
        for noun in shares:
            counted[noun] = counted.get(noun, 0) + 1
    return sorted(noun for noun, count in counted.items() if count >= FEWEST)


def _targets(
    pictures: Sequence[str], shown: Mapping[str, Mapping[str, float]], nouns: Sequence[str]
) -> Tensor:
    """[M, V]"""
    places = {noun: place for place, noun in enumerate(nouns)}
    targets = torch.zeros(len(pictures), len(nouns))
    for index, picture in enumerate(pictures):
        for noun, share in shown[picture].items():
            if noun in places:
                targets[index, places[noun]] = share
    return targets


def _weights(pictures: Sequence[str], rows: Sequence[Row]) -> Tensor:
    photographs = {row.picture for row in rows if row.kind == "photo"}
    return torch.tensor([PHOTO_WEIGHT if picture in photographs else 1.0 for picture in pictures])


def fold_of(picture: str) -> int:
    """Which head has not seen a picture, nor a view of it: who has seen one has seen them all."""
    return int(hashlib.sha256(picture_id_of(picture).encode()).hexdigest()[:8], 16) % FOLDS


def fit(pooled: Tensor, targets: Tensor, weights: Tensor, seed: int) -> nn.Linear:
    """Features [M, Dc], target shares [M, V] and drawing weights [M] -> a linear classifier [Dc] -> [V], on their device.

    Fitted to standardised features with dropout; the standardisation is folded into the weights. Without pictures to
    learn from, every noun is as likely."""
    head = nn.Linear(pooled.shape[1], targets.shape[1], device=pooled.device)
    nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
    drawing = weights * (targets.sum(1) > 0)
    if len(pooled) < 2 or not drawing.any():
        return head
    mean, deviation = channel_statistics(pooled)
    standard = (pooled - mean) / deviation
    generator = torch.Generator(pooled.device).manual_seed(seed)
    optimizer = torch.optim.AdamW(head.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        drawn = torch.multinomial(drawing, BATCH, replacement=True, generator=generator)
        kept = torch.rand(BATCH, pooled.shape[1], generator=generator, device=pooled.device) >= DROPOUT
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
