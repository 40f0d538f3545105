"""How well texts match their pictures, and the score from which a match is believed (the filter of BLIP's CapFilt,
arXiv:2201.12086).

Scores are cosines of an aligner's embeddings. What they are worth is measured on pairs whose truth is known: pictures with
texts that people wrote, and the same pictures with each other's texts.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from more_itertools import chunked, unique_everseen
from torch import Tensor

from training.aligners.pairs import Captioned
from training.data import pictures_of
from training.data.features import FeatureStore
from training.scores.alignment import Seen, features_by
from training.scores.metrics import share
from vlm.model.aligner import Aligner
from vlm.model.text_encoders import TEXTS_AT_ONCE

PICTURES_AT_ONCE = 256
EXAMPLES = 12  # of each side in a report


@dataclass(frozen=True)
class Claim:
    """A text that may be true of a picture. `origin`: who says so."""

    picture: str
    text: str
    origin: str
    true: bool | None = None  # None: nobody knows
    score: float = 0.0


def claims_of(pictures: Sequence[Captioned], true: bool | None = True) -> list[Claim]:
    """What people wrote about the pictures."""
    return [Claim(each.picture, text, each.source, true) for each in pictures for text in each.captions]


def shuffled(claims: Sequence[Claim], part: float, seed: int) -> list[Claim]:
    """The claims, `part` of which get the text of another claim about another picture: they are false."""
    rng = random.Random(seed)
    pictures = {claim.picture for claim in claims}
    if len(pictures) < 2:
        return list(claims)
    found = []
    for claim in claims:
        if rng.random() < part:
            other = rng.choice(claims)
            while other.picture == claim.picture:
                other = rng.choice(claims)
            claim = replace(claim, text=other.text, true=False)
        found.append(claim)
    return found


@torch.no_grad()
def scored(
    aligner: Aligner, data: Path, claims: Sequence[Claim], pictures: Sequence[Captioned]
) -> list[Claim]:
    """The claims with their scores. `pictures` are training pictures, those of the claims among them; the data are read
    once, and features of a few hundred pictures are in memory at a time."""
    of_picture: dict[str, list[int]] = defaultdict(list)  # the numbers of its claims
    for number, claim in enumerate(claims):
        of_picture[claim.picture].append(number)
    scores: dict[int, float] = {}
    for names, features in _blocks(aligner, data, [each for each in pictures if each.picture in of_picture]):
        numbers = [number for name in names for number in of_picture[name]]
        places = [place for place, name in enumerate(names) for _ in of_picture[name]]
        texts = list(dict.fromkeys(claims[number].text for number in numbers))
        text_places = {text: place for place, text in enumerate(texts)}
        seen = Seen(features, [aligner.text.read(some) for some in chunked(texts, TEXTS_AT_ONCE)])
        of_pictures, of_texts = seen.embed(aligner)
        own = of_texts[[text_places[claims[number].text] for number in numbers]]
        scores |= zip(numbers, (of_pictures[places] * own).sum(1).tolist(), strict=True)
    return [replace(claim, score=scores[number]) for number, claim in enumerate(claims)]


def _blocks(
    aligner: Aligner, data: Path, pictures: Sequence[Captioned]
) -> Iterator[tuple[list[str], Tensor]]:
    """Ids of some of the pictures and their features [P, N, Dv], until all had their turn. A frozen encoder's features are
    kept beside the data; those of one that was trained are computed as the pictures come."""
    wanted = {each.picture for each in pictures}
    contents = pictures_of(data, "train", {each.source for each in pictures}, Counter())
    if aligner.encoders_trained:
        own = unique_everseen((each for each in contents if each[0] in wanted), key=itemgetter(0))
        for some in chunked(own, PICTURES_AT_ONCE):
            yield [name for name, _ in some], features_by(aligner, [content for _, content in some])
        return
    store = FeatureStore(data, aligner.preset.vision)
    store.fill(contents, wanted, aligner.vision)
    for names in chunked(dict.fromkeys(each.picture for each in pictures), PICTURES_AT_ONCE):
        yield names, torch.stack([store[name] for name in names])


def best_threshold(true: Tensor, false: Tensor) -> float:
    """The score that divides true claims [T] from false ones [F] with the most right in the mean of both shares."""
    candidates = torch.cat([true, false]).sort().values
    kept = (true[:, None] >= candidates).double().mean(0)
    dropped = (false[:, None] < candidates).double().mean(0)
    return candidates[(kept + dropped).argmax()].item()


def judged(claims: Sequence[Claim], threshold: float) -> dict[str, Any]:
    """How many are kept; of those whose truth is known, the share of true ones before (`true`) and after (`precision`),
    and how many of the true and of the false are kept. Each with its interval."""
    known = [claim for claim in claims if claim.true is not None]
    kept = [claim for claim in known if claim.score >= threshold]
    found = {"kept": [claim.score >= threshold for claim in claims]}
    if known:
        found |= {
            "true": [claim.true is True for claim in known],
            "precision": [claim.true is True for claim in kept],
            "true_kept": [claim.score >= threshold for claim in known if claim.true],
            "false_kept": [claim.score >= threshold for claim in known if not claim.true],
        }
    return {name: share(each)._asdict() for name, each in found.items()}


def examples(claims: Sequence[Claim], threshold: float) -> dict[str, list[dict[str, Any]]]:
    """Some of both sides, drawn with a fixed seed."""
    drawn = random.Random(0).sample(list(claims), len(claims))
    kept = [claim for claim in drawn if claim.score >= threshold]
    dropped = [claim for claim in drawn if claim.score < threshold]
    return {
        name: [asdict(claim) | {"score": round(claim.score, 3)} for claim in side[:EXAMPLES]]
        for name, side in {"kept": kept, "dropped": dropped}.items()
    }
