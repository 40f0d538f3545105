"""Scores -> token: with hand-made scores, so that each setting's share in the choice is seen."""

from collections import Counter

import numpy as np
import pytest

from vlm.engines import Sampling
from vlm.engines.sampling import CANDIDATES, Sampler

CHANCES = np.array([0.5, 0.25, 0.125, 0.0625, 0.0625])


def scores_of(chances: np.ndarray) -> np.ndarray:
    return np.log(chances).astype(np.float32)


def drawn(sampling: Sampling, scores: np.ndarray, count: int = 2000) -> dict[int, float]:
    """How often each token is taken, each time as the first of an answer."""
    draw = np.random.default_rng(0)
    found: Counter[int] = Counter()
    for _ in range(count):
        sampler = Sampler(sampling)
        sampler.draw = draw
        found[sampler.pick(scores)] += 1
    return {token: found[token] / count for token in sorted(found)}


def test_an_answer_that_goes_on_is_penalised_for_what_it_said_before() -> None:
    scores = scores_of(np.array([0.5, 0.45, 0.05]))
    assert Sampler(Sampling(repetition_penalty=2.0)).pick(scores) == 0
    assert Sampler(Sampling(repetition_penalty=2.0, begun=(0,))).pick(scores) == 1


def test_temperature_0_takes_the_likeliest() -> None:
    sampler = Sampler(Sampling(repetition_penalty=1.0))
    assert [sampler.pick(scores_of(CHANCES[::-1])) for _ in range(3)] == [4, 4, 4]


def test_temperature_1_draws_by_the_scores() -> None:
    found = drawn(Sampling(temperature=1.0, top_p=1.0), scores_of(CHANCES))
    assert list(found.values()) == pytest.approx(CHANCES, abs=0.03)


def test_a_low_temperature_sharpens_and_a_high_one_flattens() -> None:
    cold = drawn(Sampling(temperature=0.5, top_p=1.0), scores_of(CHANCES))
    assert cold[0] == pytest.approx(0.25 / (CHANCES**2).sum(), abs=0.03)
    hot = drawn(Sampling(temperature=2.0, top_p=1.0), scores_of(CHANCES))
    assert hot[0] == pytest.approx(0.5**0.5 / (CHANCES**0.5).sum(), abs=0.03)


@pytest.mark.parametrize("temperature", [1e-3, 1e-300])
def test_the_smallest_temperatures_take_the_likeliest(temperature: float) -> None:
    assert drawn(Sampling(temperature=temperature), scores_of(CHANCES), 20) == {0: 1.0}


@pytest.mark.parametrize(
    ("top_p", "left"), [(1.0, 5), (0.9, 4), (0.87, 3), (0.76, 3), (0.74, 2), (0.51, 2), (0.5, 1), (0.0, 1)]
)
def test_top_p_leaves_the_likeliest_and_the_one_that_crosses_the_line(top_p: float, left: int) -> None:
    assert [*drawn(Sampling(temperature=1.0, top_p=top_p), scores_of(CHANCES))] == [*range(left)]


@pytest.mark.parametrize(("min_p", "left"), [(0.0, 5), (0.12, 5), (0.13, 3), (0.26, 2), (0.51, 1), (1.0, 1)])
def test_min_p_leaves_what_is_so_likely_beside_the_first(min_p: float, left: int) -> None:
    found = drawn(Sampling(temperature=1.0, top_p=1.0, min_p=min_p), scores_of(CHANCES))
    assert [*found] == [*range(left)]


def test_what_the_answer_has_is_penalised_whatever_the_sign_of_its_score() -> None:
    positive, negative = np.array([3.0, 2.8, 0.0], np.float32), np.array([-1.0, -1.05, -9.0], np.float32)
    for scores in (positive, negative):
        before = scores.copy()
        sampler = Sampler(Sampling(repetition_penalty=1.1))
        assert [sampler.pick(scores) for _ in range(3)] == [0, 1, 0]
        assert (scores == before).all()  # they are the engine's
        assert [Sampler(Sampling(repetition_penalty=1.0)).pick(scores) for _ in range(3)] == [0, 0, 0]


def test_a_seed_is_repeatable_and_another_draws_otherwise() -> None:
    scores = scores_of(CHANCES)

    def answer(seed: int) -> list[int]:
        sampler = Sampler(Sampling(temperature=1.5, top_p=1.0, seed=seed))
        return [sampler.pick(scores) for _ in range(20)]

    assert answer(1) == answer(1)
    assert len({tuple(answer(seed)) for seed in range(5)}) == 5


def test_of_a_large_vocabulary_the_likeliest_are_drawn_from() -> None:
    scores = np.random.default_rng(0).permutation(100 * CANDIDATES).astype(np.float32) / 1e4
    found = drawn(Sampling(temperature=2.0, top_p=1.0), scores, 500)
    assert set(found) <= set(np.argsort(-scores)[:CANDIDATES].tolist())
    assert len(found) > 100
