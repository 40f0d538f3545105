"""Scores of the next token -> the token. Shared by the engines, so that a seed means the same in each."""

import numpy as np

from vlm.engines import Sampling

CANDIDATES = 256  # the likeliest tokens, among which a temperature above 0 draws


class Sampler:
    """Chooses the tokens of one answer."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self.draw = np.random.default_rng(sampling.seed)
        self.chosen = set(sampling.begun)

    def pick(self, scores: np.ndarray) -> int:
        """[V] float32 -> a token id."""
        how = self.sampling
        if self.chosen and how.repetition_penalty != 1.0:
            scores = scores.copy()
            said = list(self.chosen)
            scores[said] = np.where(
                scores[said] > 0, scores[said] / how.repetition_penalty, scores[said] * how.repetition_penalty
            )
        token = int(scores.argmax()) if how.temperature <= 0 else self._drawn(scores)
        self.chosen.add(token)
        return token

    def _drawn(self, scores: np.ndarray) -> int:
        how = self.sampling
        count = min(CANDIDATES, len(scores))
        ids = np.argpartition(scores, -count)[-count:]
        ids = ids[np.argsort(-scores[ids], kind="stable")]
        behind = scores[ids].astype(np.float64) - scores[ids[0]]
        chances = np.exp(behind / how.temperature)
        chances /= chances.sum()
        likely = np.cumsum(chances) - chances < how.top_p  # the token that crosses the line stays
        kept = likely & (chances >= how.min_p * chances[0])
        kept[0] = True  # with a top_p of 0 as well
        chances = np.where(kept, chances, 0.0)
        return int(self.draw.choice(ids, p=chances / chances.sum()))
