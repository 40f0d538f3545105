"""The goals that an adapter is judged by, as a table of data, and results -> one line for each goal.

Photographs are those of the validation split, which training never sees; the 60 photographs of Tux Paint and easy-VQA have
a test split of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from training.scores.items import Item
from training.scores.measures import totals
from training.scores.metrics import share_of
from training.scores.selection import Options

FULL_FROM = "easy-vqa"  # the run that --full asks every question of


@dataclass(frozen=True)
class Goal:
    """A measure of a run and the bounds that it should keep."""

    what: str
    measure: str = "accuracy"
    at_least: float | None = None
    at_most: float | None = None
    above: str = ""  # a measure of the same run to which at_least is added


@dataclass(frozen=True)
class Run:
    """Questions that are answered together, and what is measured on them."""

    name: str
    options: Options
    goals: tuple[Goal, ...]


def _run(name: str, source: str, split: str, task: str | None, *goals: Goal, **more: Any) -> Run:
    return Run(name, Options(source, split, task, **more), goals)


DEVELOPMENT = (
    _run("flickr8k", "flickr8k", "validation", "describe", Goal("Flickr8k captions, CIDEr", "cider", 0.45)),
    _run(
        "coco", "coco-train2017", "validation", "describe",
        Goal("COCO captions, CIDEr", "cider", 0.40),
        Goal("COCO captions, invented objects (CHAIR-i)", "chair_i", at_most=0.25),
    ),
    _run("caltech101", "caltech101", "validation", "name", Goal("Caltech-101, right noun", at_least=0.80)),
    _run(
        "tuxpaint", "tuxpaint", "test", "name", Goal("Tux Paint photographs, right noun", at_least=0.65), kind="photo"
    ),
    _run(
        "presence", "coco-train2017,ade20k", "validation", "presence",
        Goal("is there a ..., balanced accuracy", "balanced_accuracy", 0.80),
        Goal("is there a ..., share of yes", "yes_rate", 0.40, 0.60),
        limit=400,
    ),
    _run(
        "count", "coco-train2017", "validation", "count_to_4",
        Goal("how many, 1 to 4, exact", "count_accuracy", 0.10, above="most_frequent_number"),
    ),
    _run("daquar", "daquar", "validation", "all", Goal("DAQUAR, exact", "accepted_exact", 0.30), limit=400),
    _run("easy-vqa", "easy-vqa", "test", None, Goal("easy-VQA", at_least=0.99), limit=1000),
    _run("scene", "ade20k", "validation", "scene", Goal("kind of place, indoors or outdoors"), limit=300),
)  # fmt: skip
POOLED = (
    Goal("repetition, all answers", "repetition_rate", at_most=0.01),
    Goal("ended by itself, all answers", "ended_by_itself", at_least=1.0),
)
PLAIN_SHARES = {"accuracy", "count_accuracy", "accepted_exact", "repetition_rate", "ended_by_itself"}
SUITES = {"development": DEVELOPMENT}


def runs_of(suite: str, full: bool = False, limit: int | None = None, **changes: Any) -> list[Run]:
    """The runs of a suite; `limit` cuts each to so many questions, and `changes` are of every run's options."""
    runs = []
    for run in SUITES[suite]:
        own = None if full and run.name == FULL_FROM else run.options.limit
        least = min((each for each in (own, limit) if each is not None), default=None)
        runs.append(replace(run, options=replace(run.options, limit=least, **changes)))
    return runs


def goal_rows(run: Run, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A run's result -> what is known of each of its goals."""
    return [goal_row(goal, result["metrics"], result["baselines"]) for goal in run.goals]


def pooled_rows(items: Sequence[Item]) -> list[dict[str, Any]]:
    """The goals over the answers of all runs."""
    metrics = totals(items) if items else {}
    return [goal_row(goal, metrics, {}) for goal in POOLED]


def _interval(name: str, found: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """That of the bootstrap; of plain shares also Wilson's, and the wider of the two: the bootstrap sees no chance in 0 of
    9, and Wilson's does not know that questions about one picture go together."""
    low, high = found.get("low"), found.get("high")
    if name not in PLAIN_SHARES or low is None or high is None:
        return low, high
    wilson = share_of(round(found["value"] * found["of"]), found["of"])
    return min(low, wilson.low), max(high, wilson.high)


def goal_row(
    goal: Goal, metrics: Mapping[str, Mapping[str, Any]], baselines: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What is known of a goal, of a run's measures and of those of its baselines."""

    def value(of: Mapping[str, Mapping[str, Any]], name: str = goal.measure) -> float | None:
        return of.get(name, {}).get("value")

    at_least, at_most = goal.at_least, goal.at_most
    if goal.above and at_least is not None:
        constant = value(metrics, goal.above)
        at_least = None if constant is None else constant + at_least
    found = metrics.get(goal.measure, {})
    low, high = _interval(goal.measure, found)
    answer = value(metrics)
    low_enough = at_most is None or (answer is not None and answer <= at_most)
    judged = answer is not None and (goal.at_least, goal.at_most) != (None, None)
    met = answer is not None and low_enough and (at_least is None or answer >= at_least)
    return {
        "what": goal.what,
        "measure": goal.measure,
        "n": found.get("of", 0),
        "answer": answer,
        "low": low,
        "high": high,
        **{name: value(baselines.get(name, {})) for name in ("draft", "blank_picture", "question_only")},
        "at_least": at_least,
        "at_most": at_most,
        "met": met if judged else None,
    }
