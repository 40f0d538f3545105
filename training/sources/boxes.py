"""Boxes around all things of some kinds -> how many, is there, on which side, what is beside, the largest, what else.

A picture without boxes is not annotated, not empty: nothing is asked of it. Small boxes are neither asked about nor
called absent, and more than six of a thing are not counted.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from training.picture import Row
from training.sources.balance import Candidate, cap, even_out
from training.sources.index_lines import Box, Known
from training.sources.nouns import EXACT, everyday, is_countable, join, noun_phrase, number, plural, several
from training.sources.presence import ask_balanced
from training.sources.taken_for import taken_for
from training.wording.phrases import sentence
from training.wording.questions import (
    BESIDE,
    ELSE,
    HOW_MANY,
    LARGEST,
    LIST_THINGS,
    NAME,
    SIDE,
    WHERE,
    WHERE_IS,
)

CLEAR, COUNTED = 0.004, 0.0015  # of the picture's area: what is asked about, and what is counted
MOST_OF_ONE_NUMBER = 0.4  # of the answers to how many
BETWEEN = [WHERE["across"][place] for place in (0, 1, 2, 5)]  # these name both things


class Seen(NamedTuple):
    """The boxes of one picture, by the names of their things."""

    image: str
    boxes: dict[str, list[Box]]
    rng: random.Random

    @property
    def clear(self) -> list[str]:
        """Names of things that are large enough, the largest first."""
        largest = {name: max(box.area for box in boxes) for name, boxes in self.boxes.items()}
        return sorted((name for name in largest if largest[name] >= CLEAR), key=lambda name: -largest[name])

    @property
    def single(self) -> dict[str, Box]:
        return {
            name: self.boxes[name][0]
            for name in self.clear
            if len(self.boxes[name]) == 1 and name != "dining table"
        }


def ask(source: str, known: Sequence[Known], split: str) -> dict[str, list[Row]]:
    pictures = [see(source, each) for each in known if each.boxes]
    rows: dict[str, list[Row]] = defaultdict(list)
    seed = f"boxes {source} {split}"
    words = {each.image: set(re.findall(r"[a-z]+", " ".join(each.captions).lower())) for each in known}
    present = {seen.image: set(seen.clear) for seen in pictures}
    asked = {name for names in present.values() for name in names}
    maybe = {
        seen.image: taken_for(seen.boxes, asked)
        | {name for name in asked if {name.split()[-1].lower(), plural(name).lower()} & words[seen.image]}
        for seen in pictures
    }
    for image, found in ask_balanced(present, seed, maybe, most=4).items():
        rows[image] += found
    counts = [candidate for seen in pictures for candidate in count_candidates(seen)]
    sides = [candidate for seen in pictures for candidate in side_candidates(seen)]
    for chosen in (cap(counts, MOST_OF_ONE_NUMBER, seed), even_out(sides, seed)):
        for candidate in chosen:
            rows[candidate.image].append(candidate.row)
    for seen in pictures:
        objects = tuple(sorted(seen.boxes))
        rows[seen.image] += beside_rows(seen) + largest_rows(seen) + list_rows(seen)
        rows[seen.image] = [row._replace(objects=objects) for row in rows[seen.image]]
    return rows


def see(source: str, known: Known) -> Seen:
    boxes: dict[str, list[Box]] = defaultdict(list)
    for box in known.boxes:
        if name := everyday(box.name, source):
            boxes[name].append(box)
    return Seen(known.image, dict(boxes), random.Random(f"boxes {source}/{known.image}"))


def count_candidates(seen: Seen) -> list[Candidate]:
    """How many are there, of what can be counted."""
    found = []
    for name in seen.clear:
        boxes = seen.boxes[name]
        if is_countable(name) and len(boxes) <= EXACT and min(box.area for box in boxes) >= COUNTED:
            question = seen.rng.choice(HOW_MANY).format(x=plural(name))
            said = number(len(boxes))
            row = Row("count", question, sentence(said), accepted=(said, str(len(boxes))))
            found.append(Candidate(seen.image, name, said, row))
    return found


def side_candidates(seen: Seen) -> list[Candidate]:
    """Which half of the picture a thing is in, where it does not reach into the other."""
    found = []
    for name, box in seen.single.items():
        side = "left" if box.x + box.width < 0.5 and box.middle < 0.37 else ""
        side = "right" if box.x > 0.5 and box.middle > 0.63 else side
        if side and is_countable(name):
            found.append(Candidate(seen.image, name, side, side_row(f"the {name}", side, seen.rng)))
    return found


def side_row(thing: str, side: str, rng: random.Random) -> Row:
    """A question that offers both sides is answered by one word, an open one by more."""
    accepted = (side, f"on the {side}")
    if rng.random() < 0.3:
        return Row("where", rng.choice(WHERE_IS).format(a=thing), f"On the {side}.", accepted=accepted)
    return Row("where", rng.choice(SIDE).format(a=thing), sentence(side), accepted=accepted)


def beside_rows(seen: Seen) -> list[Row]:
    """Two things that are clearly beside each other; which is asked about is drawn, so that the sides are even."""
    single = {name: box for name, box in seen.single.items() if is_countable(name)}
    pairs = [(a, b) for a in single for b in single if are_beside(single[a], single[b])]
    rows = []
    for left, right in seen.rng.sample(pairs, min(2, len(pairs))):
        thing, other, side = seen.rng.choice([(left, right, "left"), (right, left, "right")])
        question = seen.rng.choice(BETWEEN).format(a=f"the {thing}", b=f"the {other}")
        rows.append(Row("where", question, sentence(side), accepted=(side,)))
        side = seen.rng.choice(("left", "right"))
        other = right if side == "left" else left
        standing = [
            name for name in seen.clear if any(stands(box, single[other], side) for box in seen.boxes[name])
        ]
        whole = all(stands(box, single[other], side) for name in standing for box in seen.boxes[name])
        if 1 <= len(standing) <= 2 and whole:
            things = join([several(name, len(seen.boxes[name])) for name in standing])
            question = seen.rng.choice(BESIDE[side]).format(b=f"the {other}")
            rows.append(Row("which", question, sentence(things), accepted=tuple(standing)))
    return rows


def are_beside(left: Box, right: Box) -> bool:
    overlap = min(left.y + left.height, right.y + right.height) - max(left.y, right.y)
    return left.x + left.width <= right.x + 0.02 and overlap > 0.3 * min(left.height, right.height)


def stands(box: Box, other: Box, side: str) -> bool:
    return box.middle < other.x if side == "left" else box.middle > other.x + other.width


def largest_rows(seen: Seen) -> list[Row]:
    if not seen.clear:
        return []
    first, *others = seen.clear
    area = {name: max(box.area for box in seen.boxes[name]) for name in seen.clear}
    if not others or area[first] < 0.1 or area[first] < 1.6 * area[others[0]]:
        return []
    answer = noun_phrase(first)
    return [Row("which", seen.rng.choice(LARGEST), sentence(answer), accepted=(first,))]


def list_rows(seen: Seen) -> list[Row]:
    """All the things, or all but one."""
    if not seen.clear:
        return []
    counts = Counter({name: len(seen.boxes[name]) for name in seen.clear[:5]})
    things = {name: several(name, count) for name, count in counts.items()}
    if len(things) == 1:
        name = seen.clear[0]
        return [Row("name", seen.rng.choice(NAME), sentence(things[name]), accepted=(name, plural(name)))]
    rows = [
        Row("vqa", seen.rng.choice(LIST_THINGS), sentence(join([*things.values()])), accepted=tuple(things))
    ]
    if len(seen.clear) <= 4:
        told = seen.rng.choice(list(things))
        others = [name for name in things if name != told]
        known = f"the {told if counts[told] == 1 else plural(told)}"
        answer = sentence(join([things[name] for name in others]))
        rows.append(Row("vqa", seen.rng.choice(ELSE).format(a=known), answer, accepted=tuple(others)))
    return rows
