"""Conversations about one picture each -> some about two or three, composed so that every answer stays true.

Pictures come together, and questions name them by their order ("the second picture"), or one comes in a later turn and
the next question is about it ("And this?"). Serving offers both, and a model knows only what training showed.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from training.data import Row
from training.wording.phrases import with_article
from training.wording.questions import (
    ACTION,
    CATEGORY,
    DESCRIBE,
    HAPPENING,
    IN_OR_OUT,
    LONG,
    NAME,
    PLACE,
    SHORT,
)

ORDINALS = ("first", "second", "third")
TURNS = 2  # of each picture
POINTING = (
    "In the {} picture: {}",
    "Look at the {} picture. {}",
    "{1} I mean the {0} picture.",
    "The {} one: {}",
)
GOING_ON = ("And this?", "And this one?", "And here?", "What about this one?")
EACH = ("What is in each picture?", "Describe the pictures one by one.", "What are these?")
# Wordings of one question each, which "And this?" asks again; a task has several: "Is it indoors?", "What place is it?"
ALIKE = (NAME, DESCRIBE, SHORT, LONG, CATEGORY, ACTION, HAPPENING, IN_OR_OUT, PLACE)
NAMING = ("name", "describe")


class Asked(NamedTuple):
    """A turn: a question as it is put, its answer, the row that it is true by, and the pictures shown before it."""

    question: str
    answer: str
    row: Row
    shown: tuple[str, ...] = ()


def plain_turns(rows: Sequence[Row]) -> list[Asked]:
    """The questions about one picture as they are; the picture is shown before the first."""
    return [
        Asked(row.question, row.answer, row, (row.picture,) * (not place)) for place, row in enumerate(rows)
    ]


def compose(drawn: Sequence[Sequence[Row]], share: float, order: random.Random) -> Iterator[list[Asked]]:
    """Conversations about one picture each -> the same, but `share` of their pictures are shown with others."""
    joined = []
    for rows in drawn:
        if order.random() < share:
            joined.append(rows)
        else:
            yield plain_turns(rows)
    order.shuffle(joined)
    waiting = iter(joined)
    while group := list(islice(waiting, order.choice((2, 2, len(ORDINALS))))):
        if len(group) == len({rows[0].picture for rows in group}) > 1:
            yield order.choice((_later, _later, _together, _each))(group, order)
        else:  # the last one, or one picture twice
            yield from map(plain_turns, group)


def _later(group: Sequence[Sequence[Row]], order: random.Random) -> list[Asked]:
    """One picture after the other; at times the talk then comes back to an earlier one."""
    turns: list[Asked] = []
    for rows in group:
        alike = [row for row in _free(rows) if turns and _ask_the_same(row, turns[-1].row)]
        if alike and order.random() < 0.5:
            turns.append(Asked(order.choice(GOING_ON), alike[0].answer, alike[0], (alike[0].picture,)))
        else:
            turns += plain_turns(rows[:TURNS])
    said = [turn.row for turn in turns]
    left = [(place, row) for place, rows in enumerate(group[:-1]) for row in _free(rows) if row not in said]
    if left and order.random() < 0.5:
        turns.append(_pointed(*order.choice(left), order))
    return turns


def _together(group: Sequence[Sequence[Row]], order: random.Random) -> list[Asked]:
    """All pictures before the first question, and every question names its picture by its place."""
    asked = [
        _pointed(place, row, order) for place, rows in enumerate(group) for row in _free(rows)[:TURNS]
    ] + list(_which(group))
    order.shuffle(asked)
    return _shown_first(asked[: TURNS * len(group)], group) if asked else _later(group, order)


def _each(group: Sequence[Sequence[Row]], order: random.Random) -> list[Asked]:
    """One question about all pictures, and an answer that names them in order."""
    named = [next((row for row in _free(rows) if row.task in NAMING), None) for rows in group]
    known = [row for row in named if row]
    if len(known) < len(group):
        return _together(group, order)
    answer = " ".join(
        f"The {ordinal} picture: {row.answer}" for ordinal, row in zip(ORDINALS, known, strict=False)
    )
    return _shown_first([Asked(order.choice(EACH), answer, known[0])], group)


def _which(group: Sequence[Sequence[Row]]) -> Iterator[Asked]:
    """Which picture shows something that one alone is known to show."""
    named = [next((row for row in _free(rows) if row.task == "name" and row.noun), None) for rows in group]
    known = [row for row in named if row]
    nouns = [{row.noun.lower(), *map(str.lower, row.accepted)} for row in known]
    apart = all(one.isdisjoint(other) for place, one in enumerate(nouns) for other in nouns[:place])
    if len(known) == len(group) and apart:
        for ordinal, row in zip(ORDINALS, known, strict=False):
            yield Asked(f"Which picture shows {with_article(row.noun)}?", f"The {ordinal} one.", row)


def _pointed(place: int, row: Row, order: random.Random) -> Asked:
    """The question with the place of its picture."""
    template = order.choice(POINTING)
    inside = template.startswith("{1}") or ". {" in template
    question = row.question if inside else _lowered(row.question)
    return Asked(template.format(ORDINALS[place], question), row.answer, row)


def _shown_first(asked: Sequence[Asked], group: Sequence[Sequence[Row]]) -> list[Asked]:
    pictures = tuple(rows[0].picture for rows in group)
    return [asked[0]._replace(shown=pictures), *asked[1:]]


def _free(rows: Sequence[Row]) -> list[Row]:
    """Questions that lean on nothing that was said before."""
    return [row for row in rows if row.task != "chat" and not (row.conversation and row.turn)]


def _ask_the_same(one: Row, other: Row) -> bool:
    return one.task == other.task and any(one.question in each and other.question in each for each in ALIKE)


def _lowered(text: str) -> str:
    """Without the capital of a sentence's first word; "TV" and "I" keep theirs."""
    first = text.partition(" ")[0]
    return text if first.isupper() and len(first) > 1 or first == "I" else text[:1].lower() + text[1:]
