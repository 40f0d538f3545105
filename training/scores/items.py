"""Rows and answers -> items, plain dictionaries as they stand in the result file, from which every total is computed.

A measure that an example does not have (balance, for a question that is not yes or no) is absent from its scores and is not
counted. compare.py and report.py need the items alone, and no model.
"""

from collections.abc import Sequence
from typing import Any

from training.data import Row
from training.scores.captions import cider, meteor, rouge_l, tokens
from training.scores.chair import invented
from training.scores.metrics import is_exact, names_one_of, repeats, yes_or_no
from training.scores.verdicts import (
    NAMING,
    bare_truth,
    is_accepted,
    is_right,
    nouns_of,
    references_of,
    short_answers,
)
from training.scores.vqa import vqa_accuracy

Item = dict[str, Any]

GROUPS = ("task", "kind", "style", "source")


def make_items(rows: Sequence[Row], answers: Sequence[str]) -> list[Item]:
    """One item for each answer. CIDEr looks at all references at once, so it is added here."""
    items = [make_item(row, answer) for row, answer in zip(rows, answers, strict=True)]
    rarity = cider([item["answer"] for item in items], [item["references"] for item in items])
    for item, score in zip(items, rarity, strict=True):
        item["scores"]["cider"] = score
    return items


def make_item(row: Row, answer: str) -> Item:
    """One answer with all that is known of it."""
    references = references_of(row)
    right = is_right(row, answer)
    return {
        "picture": row.picture,
        "question": row.question,
        "truth": row.noun if row.noun and row.task in ("", "name") else row.answer,
        "answer": answer,
        **{name: getattr(row, name) for name in GROUPS},
        "references": references,
        "right": right,
        "scores": {
            name: float(score)
            for name, score in (
                wording(answer, references)
                | {"right": right, "exact": is_exact(answer, row.answer)}
                | own_scores(row, answer, right)
            ).items()
            if score is not None
        },
    }


def wording(answer: str, references: Sequence[str]) -> dict[str, float | None]:
    """What any answer has: likeness to the references, length, repetition. BLEU comes from columns of counts."""
    return {
        "vqa": vqa_accuracy(answer, references),
        "rouge_l": rouge_l(answer, references),
        "meteor": meteor(answer, references),
        "repeats": repeats(answer),
        "words": len(tokens(answer)),
    }


def own_scores(row: Row, answer: str, right: bool | None) -> dict[str, float | None]:
    """What only some questions have: the noun, the choice, the number, yes or no, and the objects that a caption names."""
    scores: dict[str, float | None] = {}
    if row.task in NAMING and not row.references and (nouns := nouns_of(row)):
        scores["noun"] = names_one_of(answer, nouns)
    if row.task in ("choice", "count"):
        scores[row.task] = right
    if row.task in ("vqa", "count", "colour") and short_answers(row):
        scores["accepted"] = is_accepted(row, answer)
    if truth := bare_truth(row):
        scores[f"{truth}_{yes_or_no(answer) or 'other'}"] = 1
    if row.task == "describe" and (row.objects or row.references):
        named, absent = invented(answer, row.objects, row.references)
        scores |= {"objects": len(named), "invented": len(absent), "invents": bool(absent)}
    return scores
