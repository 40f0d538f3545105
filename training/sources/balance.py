"""Rows chosen so that no answer can be guessed from the question."""

import random
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from training.picture import Row


class Candidate(NamedTuple):
    image: str
    question: Hashable  # what is asked about, such as a noun
    answer: str
    row: Row


def even_out(candidates: Sequence[Candidate], seed: str) -> list[Candidate]:
    """Each answer to a question as often as the rarest of its two or more answers; a single answer is never kept."""
    rng = random.Random(seed)
    asked: dict[Hashable, dict[str, list[Candidate]]] = defaultdict(lambda: defaultdict(list))
    for candidate in candidates:
        asked[candidate.question][candidate.answer].append(candidate)
    kept = []
    for answers in asked.values():
        fewest = min(map(len, answers.values())) if len(answers) > 1 else 0
        kept += [candidate for found in answers.values() for candidate in rng.sample(found, fewest)]
    return kept


def cap(candidates: Sequence[Candidate], share: float, seed: str) -> list[Candidate]:
    """No answer makes up more than about `share` of the rows: those of the frequent ones are thinned out."""
    rng = random.Random(seed)
    found: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        found[candidate.answer].append(candidate)
    most = max(map(len, found.values()), default=0)
    while most > 1 and most > share * sum(min(most, len(each)) for each in found.values()):
        most -= 1
        if most <= sorted(map(len, found.values()))[0]:
            break
    return [candidate for each in found.values() for candidate in rng.sample(each, min(most, len(each)))]
