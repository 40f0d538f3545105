"""Rows of one picture -> short conversations in order: what is it, then what follows from it, up to four turns.

The turns are rows that the picture has already, facts from `training/knowledge.jsonl` about what was named, and now
and then a question that nobody can answer from a small picture, with an answer that says so.
"""

import json
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from training.picture import Row
from training.sources.index_lines import Known
from training.sources.labels import name_of
from training.sources.nouns import everyday, noun_phrase
from training.wording.phrases import without_article

KNOWLEDGE = Path(__file__).parent.parent / "knowledge.jsonl"
SHARE = 0.6  # of the pictures have a conversation
CANNOT = 0.06  # of the conversations end in what cannot be told
FIRST = (
    "describe",
    "name",
    "vqa",
    "count",
    "colour",
    "which",
)  # what a conversation begins with, the best first
CANNOT_BE_TOLD = {
    "text": (
        ["What is written on it?", "Can you read the text?", "What does the writing say?", "What do the letters say?"],
        ["I cannot read the text in the picture.", "I cannot make out any writing in the picture.",
         "I cannot read that from the picture.", "The picture is too small for me to read any text."],
    ),
    "person": (
        ["Who is this person?", "Do you know who this is?", "What is this person's name?", "Who is it?"],
        ["I cannot tell who this is.", "I do not know who this person is.", "I cannot tell a person's name from a picture.",
         "The picture does not tell me who this is."],
    ),
    "woman": (["What is her name?", "Who is she?"],
        ["I cannot tell her name from the picture.", "I do not know who she is."]),
    "man": (["What is his name?", "Who is he?"],
        ["I cannot tell his name from the picture.", "I do not know who he is."]),
    "time": (
        ["What time is it?", "When was this picture taken?", "What day was it?"],
        ["I cannot tell the time from the picture.", "The picture does not tell me when it was taken.",
         "I cannot tell when that was."],
    ),
    "other": (
        ["How much does it cost?", "Who took this picture?", "In which country was this?", "Who does it belong to?"],
        ["I cannot tell that from the picture.", "The picture does not tell me that.",
         "I do not know; the picture does not show it."],
    ),
}  # fmt: skip


@cache
def knowledge() -> dict[str, list[tuple[str, str]]]:
    """label -> its questions and answers"""
    facts = defaultdict(list)
    for line in KNOWLEDGE.read_text(encoding="utf-8").splitlines():
        fact = json.loads(line)
        facts[fact["label"]].append((fact["question"], fact["answer"]))
    return dict(facts)


def add(source: str, known: Sequence[Known], rows: dict[str, list[Row]]) -> None:
    """Put a conversation behind the rows of most pictures."""
    for each in known:
        rng = random.Random(f"follow-ups {source}/{each.image}")
        if rows[each.image] and rng.random() < SHARE:
            turns = converse(source, each, rows[each.image], rng)
            name = f"{source}/{each.image}#1"
            if len(turns) > 1:
                rows[each.image] += [
                    row._replace(conversation=name, turn=turn) for turn, row in enumerate(turns)
                ]


def converse(source: str, known: Known, rows: Sequence[Row], rng: random.Random) -> list[Row]:
    by_task = {task: [row for row in rows if row.task == task] for task in FIRST}
    order = FIRST if not known.label else ("name",)
    first = next((rng.choice(by_task[task]) for task in order if by_task[task]), None)
    if first is None:
        return []
    others = [row for row in rows if row.task not in ("describe", "name", "choice") and row is not first]
    facts = facts_of(source, known, first, rng)
    followed = rng.sample(others, min(rng.randint(1, 2), len(others)))
    turns = [first, *followed, *facts] if rng.random() < 0.5 else [first, *facts, *followed]
    turns = one_of_each(turns)[:4]
    if rng.random() < CANNOT:
        turns = [*turns[:3], cannot(known, rng)]
    return turns


def one_of_each(turns: Sequence[Row]) -> list[Row]:
    """Nobody asks the same twice, in other words or for the same answer."""
    asked = {row.question: row for row in reversed(turns)}
    return list({row.answer: row for row in asked.values()}.values())[::-1]


def facts_of(source: str, known: Known, first: Row, rng: random.Random) -> list[Row]:
    """One or two facts about what the picture shows; by its name, unless it alone was named before."""
    if known.label:
        found = name_of(source, known)
        name = without_article(found.said or found.phrase)
        named = [name if name in knowledge() else name.lower()]
    else:
        named = sorted(
            {name for box in known.boxes if box.area > 0.03 and (name := everyday(box.name, source))}
        )
    named = [name for name in named if name in knowledge()]
    if not named or (not known.label and rng.random() < 0.5):
        return []
    name = rng.choice(named)
    facts = rng.sample(knowledge()[name], min(rng.randint(1, 2), len(knowledge()[name])))
    alone = bool(known.label) or first.task == "name"
    return [
        Row("chat", question if alone else about(question, name), answer, accepted=())
        for question, answer in facts
    ]


def about(question: str, name: str) -> str:
    """'What is it used for?' -> 'What is the fork used for?'"""
    question = re.sub(r"\bone\b", noun_phrase(name), question)
    question = re.sub(r"\bthis animal\b|\b(?:it|them|they)\b", f"the {name}", question)
    return (
        question.replace("are the ", "is the ")
        .replace("do the ", "does the ")
        .replace("such animals", f"a {name}")
    )


def cannot(known: Known, rng: random.Random) -> Row:
    """A question whose answer no picture of this size holds, of the kinds that fit what is known."""
    said = " ".join([*known.captions, known.label, *(box.name for box in known.boxes)]).lower()
    words = set(re.findall(r"[a-z]+", said))
    kinds = ["other"] if words & {"clock", "watch", "sign", "bill"} else ["text", "time", "other"]
    kinds += ["person"] if words & {"person", "faces"} else []
    kinds += (
        ["woman"]
        if words & {"woman", "girl", "lady"} and not words & {"man", "boy", "women", "girls"}
        else []
    )
    kinds += ["man"] if words & {"man", "boy"} and not words & {"woman", "girl", "men", "boys"} else []
    questions, answers = CANNOT_BE_TOLD[rng.choice(kinds)]
    return Row("chat", rng.choice(questions), rng.choice(answers), accepted=("cannot", "not"))
