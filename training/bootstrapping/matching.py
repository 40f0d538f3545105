"""How well texts match their pictures, and the score from which a match is believed (the filter of BLIP's CapFilt,
arXiv:2201.12086).

Scores are cosines of an aligner's embeddings. What they are worth is measured on pairs whose truth is known: pictures with
texts that people wrote, and the same pictures with each other's texts.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from more_itertools import chunked
from torch import Tensor

from training.aligners.pairs import Captioned
from training.scores.alignment import see
from training.scores.metrics import share
from vlm.model.aligner import Aligner

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


def scored(
    aligner: Aligner, data: Path, claims: Sequence[Claim], pictures: Sequence[Captioned]
) -> list[Claim]:
    """The claims with their scores, by picture. `pictures` are training pictures, those of the claims among them; features
    of a few hundred are in memory at a time."""
    found: list[Claim] = []
    for some in chunked(pictures, PICTURES_AT_ONCE):
        places = {each.picture: place for place, each in enumerate(some)}
        own = [claim for claim in claims if claim.picture in places]
        if own:
            found += _scored(aligner, data, own, some, places)
    return found


@torch.no_grad()
def _scored(
    aligner: Aligner,
    data: Path,
    claims: Sequence[Claim],
    pictures: Sequence[Captioned],
    places: Mapping[str, int],
) -> list[Claim]:
    texts = list(dict.fromkeys(claim.text for claim in claims))
    text_places = {text: place for place, text in enumerate(texts)}
    of_pictures, of_texts = see(aligner, data, pictures, texts, "train").embed(aligner)
    rows = of_pictures[[places[claim.picture] for claim in claims]]
    scores = (rows * of_texts[[text_places[claim.text] for claim in claims]]).sum(1)
    return [replace(claim, score=score) for claim, score in zip(claims, scores.tolist(), strict=True)]


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
