"""The rows of a data folder -> the questions that are scored, and what could be answered without looking."""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from training.data import Row, iterate_rows, sources_of
from training.scores.metrics import majority_answers, normalise, number_in
from training.scores.verdicts import polar_truth
from vlm.errors import UserError

# Of several wordings about one picture, the one that is asked
PLAINEST = ("What is this?", "Describe the picture.")
TASKS = {
    "name": {"name"},
    "describe": {"describe"},
    "category": {"category"},
    "yes_no": {"yes", "no"},
    "presence": {"yes", "no"},
    "choice": {"choice"},
    "colour": {"colour"},
    "action": {"action"},
    "count": {"count"},
    "count_to_4": {"count"},
    "where": {"where", "which"},
    "scene": {"scene"},
    "vqa": {"vqa", ""},
}
NARROWER: dict[str, Callable[[Row], bool]] = {  # which of a task's rows
    "presence": lambda row: not re.search(r"\b(?:in|out)(?:doors|side)\b", row.question),
    "count_to_4": lambda row: number_in(row.answer) in {"1", "2", "3", "4"},
}
ONCE = {"name", "describe"}  # tasks of which each picture is asked one question
SEED = 16


class NoQuestions(UserError):
    """A folder holds no rows of what is asked for."""


@dataclass(frozen=True)
class Options:
    """What is asked and how the answers are taken."""

    source: str  # a source, several with commas between, or all
    split: str = "test"
    task: str | None = None  # None: the naming question where nouns are known, else all
    kind: str | None = None  # photo, drawing, render, ...
    limit: int | None = None  # so many questions, drawn with a fixed seed
    answers: str = "clean"  # as the app gives them; draft: without the clean-up
    style: str = "full"  # or keywords
    temperature: float = 0.0
    thorough: bool = False  # with another question's picture as a third baseline


@lru_cache
def rows_of(folder: Path, split: str) -> tuple[Row, ...]:
    """All rows of a split that have a picture, without their image bytes."""
    return tuple(row for row, content in iterate_rows(folder, split) if content)


def listed(names: str) -> list[str]:
    """ "a, b" -> the names in it; for an argument of the command line."""
    return [name.strip() for name in names.split(",") if name.strip()]


def from_sources(rows: Sequence[Row], source: str) -> list[Row]:
    """The rows of `Options.source`."""
    names = set(listed(source))
    return [row for row in rows if source == "all" or row.source in names]


def questions_of(folder: Path, options: Options) -> list[Row]:
    """The rows to score; none is an error that says where they come from."""
    known = from_sources(rows_of(folder, options.split), options.source)
    rows = [row for row in known if options.kind in (None, row.kind)]
    rows = select(with_all_known(rows, known), options.task, options.limit)
    if not rows:
        asked = f"{options.source}, split {options.split}"
        asked += "".join(
            f", {name} {value}" for name in ("task", "kind") if (value := getattr(options, name))
        )
        raise NoQuestions(f"{folder} holds no rows of {asked}. {there(folder, known)}")
    return rows


def there(folder: Path, known: Sequence[Row] = ()) -> str:
    """A sentence about what could be asked for: of the rows of a source and split their tasks and kinds, without any the
    sources with their splits."""
    if known:
        tasks = ", ".join(sorted({row.task for row in known} - {""})) or "none"
        kinds = ", ".join(sorted({row.kind for row in known} - {""})) or "none"
        return f"The rows of this source and split have the tasks {tasks} and the kinds {kinds}."
    splits: dict[str, set[str]] = defaultdict(set)
    for source, split in sources_of(folder):
        splits[source].add(split)
    told = (f"{source} ({', '.join(sorted(names))})" for source, names in sorted(splits.items()))
    return f"It has these sources and splits: {', '.join(told)}."


def with_all_known(rows: Sequence[Row], known: Sequence[Row]) -> list[Row]:
    """Descriptions get the objects, and the captions, that any row of their picture knows of."""
    objects: dict[str, set[str]] = defaultdict(set)
    captions: dict[str, dict[str, None]] = defaultdict(dict)
    for row in known:
        objects[row.picture].update(row.objects)
        captions[row.picture] |= dict.fromkeys(row.references)
    return [
        replace(row, objects=tuple(sorted(objects[row.picture])), references=tuple(captions[row.picture]))
        if row.task == "describe"
        else row
        for row in rows
    ]


def select(rows: Sequence[Row], task: str | None = None, limit: int | None = None) -> list[Row]:
    """The questions of a task (TASKS, or all). Without a task: the naming question of each picture whose name is known,
    else all questions. What a conversation says again is asked once. Its chat, and the later turns of a converted one,
    lean on what was said before and are left out."""
    begins: dict[tuple[str, str], int] = {}  # the first turn that is there of each conversation
    for row in rows:
        talk = (row.source, row.conversation)
        begins[talk] = min(row.turn, begins.get(talk, row.turn))
    said = [
        row
        for row in rows
        if row.task != "chat"
        and (row.task or not row.conversation or row.turn == begins[row.source, row.conversation])
    ]
    rows = list({(row.source, row.picture, row.question, row.answer): row for row in said[::-1]}.values())[
        ::-1
    ]
    if task is None:
        named = [row for row in rows if row.task == "name" or (row.noun and not row.task)]
        task, rows = ("name", named) if named else ("all", rows)
    elif task != "all":
        of_task = [row for row in rows if row.task in TASKS[task]]
        rows = list(filter(NARROWER[task], of_task)) if task in NARROWER else of_task
    if task in ONCE:
        rows = one_each(rows)
    if limit is not None and limit < len(rows):
        kept = sorted(random.Random(SEED).sample(range(len(rows)), limit))
        rows = [rows[index] for index in kept]
    return rows


def one_each(rows: Sequence[Row]) -> list[Row]:
    """One question about each picture: the plainest, else the first."""
    chosen: dict[str, Row] = {}
    for row in rows:
        if row.picture not in chosen or (
            row.question in PLAINEST and chosen[row.picture].question not in PLAINEST
        ):
            chosen[row.picture] = row
    return list(chosen.values())


def blind_guesses(rows: Sequence[Row], training: Sequence[Row]) -> list[str]:
    """The most frequent training answer to each question, or to any question of the same tasks where training has not
    met it."""
    tasks = {row.task for row in rows}
    seen = [(row.question, polar_truth(row) or row.answer) for row in training if row.task in tasks]
    frequent = majority_answers(seen)
    return [frequent.get(normalise(row.question), frequent.get("", "")) for row in rows]


def most_frequent_number(rows: Sequence[Row]) -> str:
    """The number that is right most often among the questions themselves: no constant answer does better."""
    numbers = [number_in(row.answer) for row in rows if row.task == "count"]
    return max(sorted(set(numbers)), key=numbers.count, default="")


def other_pictures(pictures: Sequence[str]) -> dict[str, str]:
    """Each distinct picture -> another one, each used once: one round through all of them in a drawn order. Empty where
    there is only one."""
    names = sorted(set(pictures))
    random.Random(0).shuffle(names)
    return dict(zip(names, names[1:] + names[:1], strict=True)) if len(names) > 1 else {}
