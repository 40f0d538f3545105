"""A row and an answer -> whether the answer is right, by the rule of the row's task. Pure functions."""

import re
from dataclasses import replace

from training.data import Row
from training.scores.metrics import (
    chosen_option,
    is_exact,
    is_raw_exact,
    names_one_of,
    normalise,
    number_in,
    options_of,
    restates,
    yes_or_no,
)
from training.wording.phrases import sentence, with_article
from vlm.chat.words import to_keywords

NAMING = ("", "name", "describe")
EXACT = "daquar"  # whose own rule takes no sentence around an answer


def is_right(row: Row, answer: str) -> bool | None:
    """By the task: yes or no as in the truth, the right option alone, the right number, an accepted answer (of DAQUAR
    nothing else), the noun named; else equal words, or a sentence that restates them. None for captions, which captions.py
    scores."""
    if truth := bare_truth(row):
        return yes_or_no(answer) == truth
    if row.task == "choice" and (options := options_of(row.question)):
        return to_keywords(chosen_option(answer, options)) == to_keywords(row.answer)
    if row.task == "count" and (number := number_in(row.answer)):
        return number_in(answer) == number
    if row.references:
        return None
    if row.task == "vqa" and row.accepted and (row.source == EXACT or is_accepted(row, answer)):
        return is_accepted(row, answer)
    if row.task in (*NAMING, "choice") and (nouns := nouns_of(row)):
        return names_one_of(answer, nouns)
    if row.task == "describe":
        return None
    right = (row.answer, *short_answers(row))
    return any(is_exact(answer, each) or restates(answer, each, row.question) for each in right)


def nouns_of(row: Row) -> tuple[str, ...]:
    """What counts as the name of the picture, or of the place that it shows."""
    return tuple(filter(None, (row.noun, *row.accepted)))


def short_answers(row: Row) -> tuple[str, ...]:
    """`accepted` where it holds answers to the question, and not the nouns of the picture."""
    return () if row.noun and row.noun in row.accepted else row.accepted


def is_accepted(row: Row, answer: str) -> bool:
    """DAQUAR's exact match: the answer is one of the accepted ones, or the whole of them, or a list of which each part is
    one of them; all in the form of metrics.raw_form."""
    parts = re.split(r",\s*(?:and\s+)?|\s+and\s+", answer.strip())
    return is_raw_exact(answer, (row.answer, *row.accepted)) or all(
        is_raw_exact(part, row.accepted) for part in parts
    )


def polar_truth(row: Row) -> str:
    """ "yes" or "no" for the questions that were made to be answered so, else empty."""
    return row.task if row.task in ("yes", "no") else ""


def bare_truth(row: Row) -> str:
    """The same, and for other data's questions that are answered by that word alone."""
    said = normalise(row.answer)
    return polar_truth(row) or (said if said in ("yes", "no") and row.task in ("", "vqa") else "")


def references_of(row: Row) -> list[str]:
    """What the wording is compared with: the human captions, or the answer and for a naming question the other nouns that
    are accepted, each as a sentence."""
    if row.references:
        return list(row.references)  # one that two people wrote counts twice, as in the COCO evaluation
    others = [sentence(with_article(noun)) for noun in row.accepted] if row.task == "name" else []
    return list(dict.fromkeys([row.answer, *others]))


def in_keywords(row: Row) -> Row:
    """What would be right where answers are given in keywords."""
    return replace(
        row,
        answer=to_keywords(row.answer),
        noun=to_keywords(row.noun),
        accepted=tuple(map(to_keywords, row.accepted)),
        references=tuple(map(to_keywords, row.references)),
    )
