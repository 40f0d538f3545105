"""Answers and truths -> scores. Pure functions."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import NamedTuple

ARTICLES = {"a", "an", "the"}


class Share(NamedTuple):
    """How many of how many, and the 95 % Wilson interval of the share (Wilson, 1927)."""

    right: int
    of: int
    share: float
    low: float
    high: float


def share(right: Sequence[bool]) -> Share:
    count, of = sum(right), len(right)
    if not of:
        return Share(0, 0, 0.0, 0.0, 1.0)
    z = NormalDist().inv_cdf(0.975)
    rate = count / of
    centre = rate + z * z / (2 * of)
    half = z * math.sqrt(rate * (1 - rate) / of + z * z / (4 * of * of))
    scale = 1 + z * z / of
    return Share(count, of, rate, (centre - half) / scale, (centre + half) / scale)


def normalise(answer: str) -> str:
    """As VQA evaluation does it (arXiv:1505.00468): lower case, no punctuation, no articles."""
    words = re.sub(r"[^\w\s]", " ", answer.lower()).split()
    return " ".join(word for word in words if word not in ARTICLES)


def is_exact(answer: str, truth: str) -> bool:
    return normalise(answer) == normalise(truth)


def names_one_of(answer: str, nouns: Iterable[str]) -> bool:
    """Whether the answer holds one of the nouns as a whole word or phrase, singular or plural."""
    words = f" {normalise(answer)} "
    return any(f" {form} " in words for noun in nouns for form in _forms(normalise(noun)))


def _forms(noun: str) -> set[str]:
    return {noun, f"{noun}s", f"{noun}es", noun.removesuffix("s"), noun.removesuffix("y") + "ies"}


def majority_answers(examples: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The most frequent answer to each question: the best that can be done without looking. "" for any question."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for question, answer in examples:
        counts[normalise(question)][normalise(answer)] += 1
        counts[""][normalise(answer)] += 1
    return {question: answers.most_common(1)[0][0] for question, answers in counts.items()}
