"""Columns of numbers, an example each -> sums and how far they would vary with other pictures. Pure functions.

The cluster bootstrap: pictures are drawn again with replacement, each with all of its questions, since questions about
one picture are right and wrong together (Efron and Tibshirani, 1993). Every measure is computed from sums, so that a
resample is a row of weights, and a thousand of them are one product of matrices.
"""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 1000
SEED = 20261121
LEVEL = 0.95
MAX_WEIGHTS = 1 << 24  # held at a time: 128 MB

Sums = dict[str, np.ndarray]  # name -> [1 + RESAMPLES] sums; the first is that of the examples as they are


def resampled_sums(pictures: Sequence[str], columns: dict[str, np.ndarray]) -> Sums:
    """The picture of each of n examples and columns [n], 0 where a column has no value -> their sums.

    The draws depend on SEED and the sorted pictures alone: two results over the same questions get the same ones,
    whatever their order, so that their difference is paired."""
    names, cluster = np.unique(np.asarray(pictures, dtype=str), return_inverse=True)
    count = len(names)
    table = np.stack([np.bincount(cluster, column, minlength=count) for column in columns.values()], axis=1)
    generator = np.random.default_rng(SEED)
    chances = np.full(count, 1 / count)
    step = max(1, MAX_WEIGHTS // count)
    parts = [table.sum(axis=0, keepdims=True)]
    for start in range(0, RESAMPLES, step):
        weights = generator.multinomial(count, chances, size=min(step, RESAMPLES - start))  # [R, pictures]
        parts.append(weights @ table)
    sums = np.concatenate(parts)  # [1 + R, columns]
    return {name: sums[:, index] for index, name in enumerate(columns)}


def interval(values: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """[1 + R] -> the value and its 95 % percentile interval; None where there is none to give."""
    first, again = float(values[0]), values[1:][np.isfinite(values[1:])]
    if not np.isfinite(first) or not len(again):
        return None, None, None
    low, high = np.quantile(again, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return first, float(low), float(high)
