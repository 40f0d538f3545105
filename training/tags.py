"""Pooled features of pictures whose noun is known -> the tagger's head, how it guesses what an unknown name looks like and
tells colours, and the taggers whose tags training reads.

Unusual: the tags of a training picture come from a head that has never seen it (cross-fitting). A head's tags for its
own pictures are nearly always right, and a language model that learned from them would believe every tag. For the same
reason a fifth of the names is hidden from each of these taggers where a question names them, and guessed.
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
from training.splits import families_of
from vlm.model.colours import NAMED_COLOURS
from vlm.model.connectors import channel_statistics
from vlm.model.tagger import COLOUR_LOOK, Tagger, WordClassifier

FOLDS = 5
WHOLE = "whole"  # the name of the tagger that the adapter gets
STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY, DROPOUT = 300, 256, 3e-3, 1e-3, 0.6
RIDGE = 3000.0
COLOUR_STEPS, COLOUR_LEARNING_RATE = 400, 3e-2
PHOTO_WEIGHT = 3.0  # a photograph is drawn this many times as often as a drawing: they are few, and what people ask about
ACCEPTED_SHARE = 0.3  # of a picture's target for its accepted nouns: "duck" for a mallard


def teach(
    tagger: Tagger, rows: Sequence[Row], store: FeatureStore, folder: Path, seed: int
) -> Callable[[str], Tagger]:
    """Give the tagger a head for the nouns of `rows` and guesses for other names, or leave it those it has; returns who
    names which picture.

    All are kept in `folder`, in half precision, and read from there, so that a run that goes on has the same."""
    named = list({row.picture: row for row in rows if row.noun}.values())
    heads = folder / "taggers"
    if not heads.is_dir():
        working = folder / "taggers.tmp"
        shutil.rmtree(working, ignore_errors=True)
        working.mkdir(parents=True)
        for name, fitted in _fit_taggers(tagger, named, rows, store, seed):
            fitted.save(working / f"{name}.safetensors")
        working.rename(heads)  # all of them or none
    taggers = {file.stem: tagger.with_head(None, []) for file in heads.glob("*.safetensors")} | {
        WHOLE: tagger
    }
    for name, each in taggers.items():
        each.load(heads / f"{name}.safetensors")
    if tagger.guess:  # now, while the language model is not yet in training
        asked = {name for row in rows for name, places in tagger.named_in(row.question).items() if not places}
        tagger.read(
            sorted(
                {name.rstrip("?").lower() for name in asked}.union(
                    *(each.hidden for each in taggers.values())
                )
            )
        )
    own = {row.picture for row in named}
    return lambda picture: taggers.get(_without(picture), tagger) if picture in own else tagger


def _fit_taggers(
    tagger: Tagger, rows: Sequence[Row], questions: Sequence[Row], store: FeatureStore, seed: int
) -> Iterator[tuple[str, Tagger]]:
    """Of a row for each named picture, and all questions: for each fold a tagger that has not seen it, and one of all
    rows, unless the tagger has a head."""
    whole = tagger
    if rows:
        nouns = sorted({row.noun.lower() for row in rows})
        pooled = torch.stack([store[row.picture][0, : tagger.classifier.in_features] for row in rows])
        targets, weights = _targets(rows, nouns), _weights(rows)
        families = families_of([noun.lower() for noun in (row.noun, *row.accepted)] for row in rows)
        head, known = tagger.head, tagger.nouns
        if not head:
            head, known = fit(pooled, targets, weights, seed), nouns
        guess = tagger.guess or fit_guess(tagger, pooled, targets, weights, nouns)
        whole = tagger.with_head(head, known, guess)
        if tagger.colours and not tagger.colour:
            whole.set_colour(fit_colour(whole, questions, store))
        without = [_without(row.picture) for row in rows]
        for name in sorted(set(without)):
            seen = torch.tensor([each != name for each in without])
            if seen.any():
                head = fit(pooled[seen], targets[seen], weights[seen], seed)
                hidden = [noun for noun in nouns if tagger.read_names and _without(families[noun]) == name]
                open_targets = targets[seen] * torch.tensor([noun not in hidden for noun in nouns])
                guess = fit_guess(tagger, pooled[seen], open_targets, weights[seen], nouns)
                yield name, whole.with_head(head, nouns, guess, hidden)
    yield WHOLE, whole


@torch.no_grad()
def fit_guess(
    tagger: Tagger,
    pooled: Tensor,
    targets: Tensor,
    weights: Tensor,
    nouns: Sequence[str],
) -> WordClassifier | None:
    """What a thing looks like from what its name means: ridge regression from the vectors of names to the mean picture of
    each noun, and to the encoder's own classifier for its classes (Romera-Paredes and Torr, ICML 2015). None without a
    language model to read names."""
    if not tagger.read_names:
        return None
    mean, deviation = channel_statistics(pooled)
    shares = (targets * weights.unsqueeze(1)).T  # [V, M]
    shown = shares.sum(1) > 0
    means = shares[shown] @ ((pooled - mean) / deviation) / shares[shown].sum(1, keepdim=True)
    rows = tagger.classifier.weight.float().cpu() * deviation
    looks = torch.cat([functional.normalize(means), functional.normalize(rows - rows.mean(0))])
    names = [noun for noun, is_shown in zip(nouns, shown.tolist(), strict=True) if is_shown] + tagger.classes
    vectors = tagger.read([name.lower() for name in names]).cpu()
    centre, spread = channel_statistics(vectors)
    standard, average = (vectors - centre) / spread, looks.mean(0)
    gram = standard.T @ standard + RIDGE * torch.eye(len(centre))
    weight = torch.linalg.solve(gram, standard.T @ (looks - average)).T / spread  # [Dc, Dl]
    guess = WordClassifier(len(centre), len(mean))
    guess.look.weight.copy_(weight)
    guess.look.bias.copy_(
        -weight @ centre
    )  # less the average: what all things share tells none of them apart
    guess.normalise.mean.copy_(mean)
    guess.normalise.deviation.copy_(deviation)
    return guess


def fit_colour(tagger: Tagger, rows: Sequence[Row], store: FeatureStore) -> nn.Linear:
    """The rows that ask for one of NAMED_COLOURS -> a linear classifier of `Tagger.colour_look`."""
    answers = ((row, row.answer.rstrip(".").lower()) for row in rows if row.task == "colour")
    asked = [(row, colour) for row, colour in answers if colour in NAMED_COLOURS]
    head = nn.Linear(COLOUR_LOOK, len(NAMED_COLOURS))
    nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
    if not asked:
        return head
    looks = torch.stack([tagger.colour_look(row.question, store[row.picture]) for row, _ in asked])
    targets = torch.tensor([NAMED_COLOURS.index(colour) for _, colour in asked])
    mean, deviation = channel_statistics(looks)
    standard = (looks - mean) / deviation
    optimizer = torch.optim.AdamW(head.parameters(), COLOUR_LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for _ in range(COLOUR_STEPS):
        loss = functional.cross_entropy(head(standard), targets, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return _of_plain_features(head, mean, deviation)


def _of_plain_features(head: nn.Linear, mean: Tensor, deviation: Tensor) -> nn.Linear:
    """A classifier of standardised features -> the same of features as they are."""
    with torch.no_grad():
        head.weight /= deviation
        head.bias -= head.weight @ mean
    return head


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
    return _of_plain_features(head, mean, deviation)


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
