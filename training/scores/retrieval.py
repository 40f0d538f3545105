"""How well pictures and texts find each other, from their similarities alone. Pure functions."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from training.scores.resampling import interval, resampled_sums

RECALLS = (1, 5, 10)
AT_ONCE = 2**26  # similarities in memory


def ranks(similarities: Tensor, right: Tensor) -> Tensor:
    """Similarities [Q, C] of queries to candidates, and which are right [Q, C] -> the rank [Q] of each query's best right
    candidate, 1 being the first. A wrong candidate that is as similar stands before it."""
    best = similarities.masked_fill(~right, float("-inf")).amax(1, keepdim=True)
    return 1 + ((similarities >= best) & ~right).sum(1)


def recall_at(found: Tensor, k: int) -> float:
    """The share of queries whose rank, of `ranks`, is `k` or better."""
    return (found <= k).float().mean().item()


def median_rank(found: Tensor) -> float:
    """The mean of the two in the middle where there are two."""
    return found.double().quantile(0.5).item()


def mean_average_precision(similarities: Tensor, right: Tensor) -> float:
    """Search by class: the mean over queries of the precision at each right candidate of the sorted list. Queries
    without a right candidate do not count."""
    order = similarities.argsort(dim=1, descending=True, stable=True)
    hits = right.gather(1, order).double()
    precision = hits.cumsum(1) / torch.arange(1, hits.shape[1] + 1)
    asked = right.any(1)
    return ((precision * hits).sum(1)[asked] / hits.sum(1)[asked]).mean().item()


def first_rank(ranked: Sequence[str], relevant: Collection[str]) -> float:
    """The place of the first relevant one in a list, best first, 1 being the first; infinite where none is in it."""
    return next((float(place) for place, name in enumerate(ranked, 1) if name in relevant), math.inf)


def average_precision(ranked: Sequence[str], relevant: Collection[str]) -> float:
    """The mean, over all relevant ones, of the precision at each; one that is not in the list counts as 0."""
    hits = [place for place, name in enumerate(dict.fromkeys(ranked), 1) if name in relevant]
    return sum(number / place for number, place in enumerate(hits, 1)) / len(set(relevant))


def retrieval(pictures: Tensor, texts: Tensor, owners: Sequence[int]) -> dict[str, float]:
    """Embeddings of pictures [P, E] and texts [T, E], and the picture that each text is of -> recall at 1, 5, 10 and median
    rank, in both directions. A picture's best text counts, as Flickr8k is judged."""
    owner, number = torch.tensor(owners), torch.arange(len(pictures))
    t2i = [
        ranks(texts[rows] @ pictures.T, owner[rows, None] == number)
        for rows in _blocks(len(texts), len(pictures))
    ]
    i2t = [
        ranks((texts @ pictures[rows].T).T, number[rows, None] == owner)
        for rows in _blocks(len(pictures), len(texts))
    ]
    return _summary({"t2i": torch.cat(t2i), "i2t": torch.cat(i2t)})


def _blocks(queries: int, candidates: int) -> Iterator[slice]:
    """Queries whose similarities to all candidates are in memory together."""
    size = max(1, AT_ONCE // max(1, candidates))
    return (slice(first, first + size) for first in range(0, queries, size))


def found_both_ways(similarities: Tensor, right: Tensor) -> dict[str, float]:
    """Similarities of texts to pictures [T, P], and which belong together [T, P] -> recalls and median rank, both ways."""
    return _summary({"t2i": ranks(similarities, right), "i2t": ranks(similarities.T, right.T)})


def _summary(both: Mapping[str, Tensor]) -> dict[str, float]:
    scores = {f"{way}_recall@{k}": recall_at(found, k) for way, found in both.items() for k in RECALLS}
    return scores | {f"{way}_median_rank": median_rank(found) for way, found in both.items()}


def recall_lost(whole: Tensor, cut: Tensor, owners: Sequence[int]) -> dict[str, dict[str, float | None]]:
    """Similarities of texts to pictures [T, P] by whole vectors and by shorter ones, and the picture that each text is
    of -> how much fewer pictures the shorter ones find, with the interval of the paired difference."""
    right = torch.tensor(owners)[:, None] == torch.arange(whole.shape[1])
    found = ranks(whole, right), ranks(cut, right)
    lost = {str(k): ((found[0] <= k).double() - (found[1] <= k).double()).numpy() for k in RECALLS}
    sums = resampled_sums([str(each) for each in owners], lost | {"texts": np.ones(len(owners))})
    means = {f"t2i_recall@{k}": interval(sums[k] / sums["texts"]) for k in lost}
    return {name: dict(zip(("value", "low", "high"), mean, strict=True)) for name, mean in means.items()}


def chance(pictures: int, texts_each: int) -> Mapping[str, float]:
    """What `retrieval` gives on average where all similarities are random: each picture has `texts_each` texts."""
    all_texts = pictures * texts_each
    scores = {f"t2i_recall@{k}": min(1.0, k / pictures) for k in RECALLS}
    for k in RECALLS:
        missed = 1.0
        for drawn in range(min(k, all_texts)):
            missed *= max(0, all_texts - texts_each - drawn) / (all_texts - drawn)
        scores[f"i2t_recall@{k}"] = 1 - missed
    return scores


def modality_gap(pictures: Tensor, texts: Tensor) -> float:
    """Distance of the centroids of the two sides [P, E], [T, E] (arXiv:2203.02053)."""
    return (pictures.mean(0) - texts.mean(0)).norm().item()
