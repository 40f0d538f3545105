"""Is there a ...? As often yes as no for each noun, and no of what stands with such things (as in POPE, arXiv:2305.10355).

In: what is in each picture of a set, and what may be in it. Out: rows. A noun is asked about where it is absent as
often as where it is present, and there in the pictures whose things it stands with most often elsewhere.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from itertools import permutations

from training.picture import Row
from training.sources.nouns import UNIQUE, noun_phrase
from training.wording.instructions import ask_presence, refuse, some
from training.wording.questions import IS_THERE, IS_VISIBLE

NOISE = 0.15  # of the affinity: which of the likely pictures is asked
WHERE_THINGS_ARE = [template for template in IS_THERE if template != "Is this {x}?"]
CROWDED = 0.12  # how much less a picture draws another question for each that it has


def ask_balanced(
    present: Mapping[str, Set[str]],
    seed: str,
    maybe: Mapping[str, Set[str]] | None = None,
    most: int = 3,
    alike: Callable[[str, str], float] | None = None,
    templates: Sequence[str] = WHERE_THINGS_ARE,
) -> dict[str, list[Row]]:
    """{picture: what is surely there}, {picture: what nobody can deny} -> its rows, about `most` of each answer.
    `alike`: how likely a noun is asked of a picture without it; by default how often it stands with such things."""
    rng = random.Random(seed)
    affinity = alike or Affinity(present)
    where = defaultdict(list)  # noun -> the pictures that show it
    for picture in sorted(present):
        for noun in sorted(present[picture]):
            where[noun].append(picture)
    rows: dict[str, list[Row]] = {picture: [] for picture in present}
    yes: Counter[str] = Counter()
    no: Counter[str] = Counter()
    for noun in sorted(where, key=lambda noun: (len(where[noun]), noun)):
        forbidden = {
            picture for picture in present if noun in present[picture] | (maybe or {}).get(picture, set())
        }
        absent = sorted(set(present) - forbidden)
        shown = where[noun]
        rng.shuffle(shown)
        shown = [picture for picture in sorted(shown, key=lambda p: yes[p]) if yes[picture] < most]
        draw = {p: affinity(noun, p) + NOISE * rng.random() - CROWDED * no[p] for p in absent}
        hard = sorted((p for p in absent if no[p] < most + 2), key=lambda p: -draw[p])
        count = min(len(shown), len(hard))
        for picture, refused in [(p, False) for p in shown[:count]] + [(p, True) for p in hard[:count]]:
            rows[picture].append(presence_row(noun, refused, sorted(present[picture]), rng, templates))
            (no if refused else yes)[picture] += 1
    return rows


class Affinity:
    """How often a noun stands with the things of a picture."""

    def __init__(self, present: Mapping[str, Set[str]]):
        self.present = present
        self.count = Counter(noun for nouns in present.values() for noun in nouns)
        self.together = Counter(pair for nouns in present.values() for pair in permutations(sorted(nouns), 2))

    def __call__(self, noun: str, picture: str) -> float:
        others = sorted(self.present[picture] - {noun})
        shares = [self.together[other, noun] / self.count[other] for other in others]
        return sum(shares) / len(shares) if shares else 0.0


def presence_row(
    noun: str, refused: bool, objects: list[str], rng: random.Random, templates: Sequence[str]
) -> Row:
    phrase = noun_phrase(noun)
    if noun in UNIQUE:
        question = rng.choice(IS_VISIBLE).format(x=phrase)
        answer = f"No, {phrase} is not in the picture." if refused else f"Yes, {phrase} is in the picture."
    else:
        question, beginning = ask_presence(phrase, rng, templates)
        answer = refuse(beginning, phrase) if refused else f"Yes, {beginning} {some(phrase)}."
    task = "no" if refused else "yes"
    return Row(task, question, answer, accepted=(task,), objects=tuple(objects))
