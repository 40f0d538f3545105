"""Rows and the replies to them -> the result that is printed and kept. No model is needed any more.

The same questions are scored five times over: the answer, its draft before the clean-up, and the baselines: the answer to a
blank picture, the most frequent training answer, and with --thorough the answer to another question's picture.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.data import Row
from training.scores.answering import BLANK
from training.scores.items import Item, make_items
from training.scores.journal import Reply
from training.scores.measures import by_group, differences, known, right_share, totals
from training.scores.metrics import mcnemar, number_in
from training.scores.selection import Options, most_frequent_number
from training.scores.verdicts import in_keywords, is_right
from vlm.chat.words import to_keywords
from vlm.errors import UserError, not_readable

VARIANTS = ("draft", "blank_picture", "question_only", "shuffled_pictures")  # of the answer
SHARES = ("accuracy", *VARIANTS)

Replies = Mapping[tuple[str, str], Reply]  # by picture and question


def read_result(file: Path) -> dict[str, Any]:
    """A result file, checked to be one of today's."""
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
        items = result["answers"]
        usable = bool(items) and all("scores" in item and "references" in item for item in items)
    except OSError as error:
        raise UserError(not_readable(file, error)) from error
    except (ValueError, KeyError, TypeError):
        usable = False
    if not usable:
        raise UserError(
            f"{file} holds no scored answers. Make it with python -m training.evaluate ... --output {file.name}"
        )
    return result


def make_result(
    rows: Sequence[Row], replies: Replies, guesses: Sequence[str], other: Mapping[str, str], options: Options
) -> dict[str, Any]:
    """`guesses`: the most frequent training answer to each row; `other`: each picture's stand-in, if there are any."""
    given = [replies[row.picture, row.question] for row in rows]
    texts = {
        "draft": [to_keywords(each.draft) if options.style == "keywords" else each.draft for each in given],
        "blank_picture": [replies[BLANK, row.question].text for row in rows],
        "question_only": [to_keywords(each) if options.style == "keywords" else each for each in guesses],
    }
    if other:
        texts["shuffled_pictures"] = [replies[other[row.picture], row.question].text for row in rows]
    scored = [in_keywords(row) for row in rows] if options.style == "keywords" else rows
    items = make_items(scored, [each.text for each in given])
    variants = {name: make_items(scored, said) for name, said in texts.items()}
    _add_what_replies_know(items, given, variants)
    _add_most_frequent_number(items, rows)
    return {
        "source": options.source,
        "split": options.split,
        "questions": len(rows),
        "accuracy": right_share(items),
        **{name: right_share(variants[name]) if name in variants else None for name in VARIANTS},
        "options": asdict(options),
        "metrics": totals(items),
        "baselines": {name: known(totals(made)) for name, made in variants.items()},
        "clean_up": clean_up(variants["draft"], items),
        "by": by_group(items),
        "answers": items,
    }


def _add_what_replies_know(
    items: Sequence[Item], replies: Sequence[Reply], variants: Mapping[str, Sequence[Item]]
) -> None:
    for index, (item, reply) in enumerate(zip(items, replies, strict=True)):
        item |= {"draft": reply.draft, "clean_up": reply.clean_up, "seen": reply.seen}
        item["scores"]["ended"] = float(reply.ended)
        for name, made in variants.items():
            if made[index]["right"] is not None:
                item["scores"][name] = float(made[index]["right"])


def _add_most_frequent_number(items: Sequence[Item], rows: Sequence[Row]) -> None:
    number = most_frequent_number(rows)
    for item, row in zip(items, rows, strict=True):
        if row.task == "count" and number_in(row.answer):
            item["scores"]["most_frequent"] = float(bool(is_right(row, number)))


def clean_up(drafts: Sequence[Item], answers: Sequence[Item]) -> dict[str, Any]:
    """What the clean-up did to the drafts: how often it was taken, and each measure's difference, answer less draft."""
    verdicts = Counter(item["clean_up"].partition(":")[0] for item in answers)
    improved = sum(bool(b["right"]) and not a["right"] for a, b in zip(drafts, answers, strict=True))
    worsened = sum(bool(a["right"]) and not b["right"] for a, b in zip(drafts, answers, strict=True))
    return {
        "verdicts": dict(sorted(verdicts.items())),
        "changed": verdicts["accepted"],
        "improved": improved,
        "worsened": worsened,
        "mcnemar_p": mcnemar(worsened, improved),
        "differences": differences(drafts, answers),
    }
