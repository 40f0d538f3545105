"""The rows of a split -> the questions that are scored, and what could be answered without looking. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass

from training.data import Row
from training.scores.metrics import majority_answers, normalise
from training.scores.scoring import polar_truth

NAMING_QUESTION = "What is this?"
TASKS = {
    "name": {"name"},
    "describe": {"describe"},
    "category": {"category"},
    "yes_no": {"yes", "no"},
    "choice": {"choice"},
    "choose": {"choice"},
    "colour": {"colour"},
    "action": {"action"},
    "count": {"count"},
    "where": {"where", "which"},
    "vqa": {"vqa", ""},
}


@dataclass(frozen=True)
class Options:
    """What is asked and how the answers are taken."""

    source: str  # all: every source
    split: str = "test"
    task: str | None = None  # None: the naming question where nouns are known, else all
    limit: int | None = None
    answers: str = "draft"  # draft: as generated; clean: as the app gives it
    style: str = "full"  # or keywords
    temperature: float = 0.0
    thorough: bool = False  # with shuffled pictures and perplexity


def select(rows: list[Row], limit: int | None, task: str | None = None) -> list[Row]:
    """The questions to score: those of a task (TASKS, or all of them); without one the naming question of each picture
    whose noun is known, else all questions."""
    if task and task != "all":
        rows = [row for row in rows if row.task in TASKS[task]]
    elif task is None and any(row.noun for row in rows):
        rows = list({row.picture: row for row in rows if row.question == NAMING_QUESTION}.values())
    return rows[:limit]


def blind_guesses(rows: Sequence[Row], training: Sequence[Row], task: str | None) -> list[str]:
    """The most frequent training answer to each question, or to any question (of the same task, where one was chosen)."""
    if task:
        tasks = {row.task for row in rows}
        seen = [(row.question, polar_truth(row) or row.answer) for row in training if row.task in tasks]
    else:
        seen = [(row.question, row.answer) for row in training]
    frequent = majority_answers(seen)
    return [frequent.get(normalise(row.question), frequent.get("", "")) for row in rows]
