"""Items -> every measure with its interval, for all of them and for each group.

Each measure is a function of sums over the examples, which is what lets resampling.py give it an interval.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from training.scores.captions import BLEU_COLUMNS, ORDERS, SPICE_ELSEWHERE, bleu, bleu_counts
from training.scores.items import GROUPS, Item
from training.scores.metrics import share
from training.scores.resampling import Sums, interval, resampled_sums

MEANS = {  # score of an example -> its total's name
    "right": "accuracy",
    "draft": "draft",
    "blank_picture": "blank_picture",
    "question_only": "question_only",
    "shuffled_pictures": "shuffled_pictures",
    "exact": "exact_match",
    "vqa": "vqa_accuracy",
    "noun": "noun_accuracy",
    "choice": "choice_accuracy",
    "count": "count_accuracy",
    "accepted": "accepted_exact",
    "most_frequent": "most_frequent_number",
    "rouge_l": "rouge_l",
    "meteor": "meteor_exact_and_stem",
    "cider": "cider",
    "invents": "chair_s",
    "repeats": "repetition_rate",
    "ended": "ended_by_itself",
    "words": "words",
}
POLAR = ("yes_yes", "yes_no", "yes_other", "no_yes", "no_no", "no_other")  # truth_answer
SUMMED = ("objects", "invented")  # of captions

OfSums = Callable[[Sums], np.ndarray]
Measure = tuple[OfSums, OfSums]  # its value, and the number of examples
Totals = dict[str, dict[str, Any]]  # measure -> value, low, high, of


def columns_of(items: Sequence[Item]) -> dict[str, np.ndarray]:
    """n items -> columns [n] to be summed: each mean's score and where there is one, counts of BLEU and the like."""
    columns = to_sum({name: [item["scores"].get(name) for item in items] for name in MEANS})
    for name in (*POLAR, *SUMMED):
        columns[name] = np.array([item["scores"].get(name) or 0.0 for item in items])
    counts = [bleu_counts(item["answer"], item["references"]) for item in items]
    return columns | {name: np.array([each[name] for each in counts]) for name in BLEU_COLUMNS}


def to_sum(columns: Mapping[str, Sequence[float | None]]) -> dict[str, np.ndarray]:
    """Columns [n] that lack some values -> what `mean_of` divides: zeros there, and "NAME of", how many it has."""
    found = {}
    for name, column in columns.items():
        found[name] = np.array([value or 0.0 for value in column])
        found[f"{name} of"] = np.array([float(value is not None) for value in column])
    return found


def mean_of(name: str) -> OfSums:
    return lambda sums: sums[name] / sums[f"{name} of"]


def _polar(sums: Sums, truth: str = "") -> np.ndarray:
    """How many are asked for a yes or no, or for the one that is given."""
    return np.sum([sums[name] for name in POLAR if name.startswith(truth)], axis=0)


def _measures() -> dict[str, Measure]:
    """Name -> (value, number of examples), both of sums. "Hallucination" is POPE's (arXiv:2305.10355): yes to what is not
    there; an answer that is neither yes nor no is not a yes."""
    measures: dict[str, Measure] = {
        total: (mean_of(score), itemgetter(f"{score} of")) for score, total in MEANS.items()
    }
    for n in ORDERS:
        measures[f"bleu_{n}"] = (lambda sums, n=n: bleu(sums, n)), (lambda sums: sums["exact of"])  # type: ignore
    measures["chair_i"] = (lambda s: s["invented"] / s["objects"]), (lambda s: s["objects"])
    polar: dict[str, OfSums] = {
        "balanced_accuracy": lambda s: (s["yes_yes"] / _polar(s, "yes") + s["no_no"] / _polar(s, "no")) / 2,
        "yes_rate": lambda s: (s["yes_yes"] + s["no_yes"]) / _polar(s),
        "hallucination_precision": lambda s: s["yes_yes"] / (s["yes_yes"] + s["no_yes"]),
        "hallucination_recall": lambda s: s["yes_yes"] / _polar(s, "yes"),
        "hallucination_f1": lambda s: 2 * s["yes_yes"] / (s["yes_yes"] + s["no_yes"] + _polar(s, "yes")),
    }
    return measures | {name: (value, _polar) for name, value in polar.items()}


MEASURES = _measures()


def totals(items: Sequence[Item]) -> Totals:
    """Items -> {measure: value, low, high, of}; value None where no item has it. Intervals: 95 %, by pictures."""
    found = totals_of([item["picture"] for item in items], columns_of(items))
    found = {name: each if each["value"] is not None else each | {"of": 0} for name, each in found.items()}
    return found | {"spice": {"value": None, "low": None, "high": None, "of": 0, "reason": SPICE_ELSEWHERE}}


def totals_of(
    pictures: Sequence[str], columns: dict[str, np.ndarray], measures: Mapping[str, Measure] = MEASURES
) -> Totals:
    """The picture of each of n examples, their columns [n] and {measure: (value, number of examples)} -> its totals."""
    sums = resampled_sums(pictures, columns)
    found: Totals = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for name, (value_of, number) in measures.items():
            value, low, high = interval(value_of(sums))
            found[name] = {"value": value, "low": low, "high": high, "of": int(number(sums)[0])}
    return found


def known(found: Mapping[str, dict[str, Any]]) -> Totals:
    """The measures that some example has."""
    return {name: each for name, each in found.items() if each["value"] is not None}


def right_share(items: Sequence[Item]) -> dict[str, Any] | None:
    """The share of right answers with Wilson's interval; None where none is right or wrong, as among captions."""
    verdicts = [bool(item["right"]) for item in items if item["right"] is not None]
    return share(verdicts)._asdict() if verdicts else None


def by_group(items: Sequence[Item]) -> dict[str, dict[str, Any]]:
    """Scores by task, kind, style and source, where the items say theirs."""
    columns = columns_of(items)
    found: dict[str, dict[str, Any]] = {}
    for group in GROUPS:
        of_items = [_group_of(item, group) for item in items]
        for name in sorted(set(of_items) - {""}):
            chosen = [index for index, of_item in enumerate(of_items) if of_item == name]
            pictures = [items[index]["picture"] for index in chosen]
            scores = totals_of(pictures, {key: column[chosen] for key, column in columns.items()})
            right = right_share([items[index] for index in chosen])
            found.setdefault(group, {})[name] = {
                "n": len(chosen),
                "accuracy": right,
                "metrics": known(scores),
            }
    return found


def _group_of(item: Item, group: str) -> str:
    value = item.get(group) or ""
    return "yes_no" if group == "task" and value in ("yes", "no") else value


def differences(first: Sequence[Item], second: Sequence[Item]) -> dict[str, dict[str, float]]:
    """Items of the same questions in the same order -> {measure: a, b, difference, low, high}, the second less the first.

    The bootstrap draws the same pictures for both, so that what makes a picture hard for both cancels out (a paired
    bootstrap; Koehn, 2004)."""
    sums = [resampled_sums([item["picture"] for item in side], columns_of(side)) for side in (first, second)]
    found = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for name, (value_of, _) in MEASURES.items():
            values = [value_of(each) for each in sums]
            difference, low, high = interval(values[1] - values[0])
            if difference is not None:
                a, b = float(values[0][0]), float(values[1][0])
                found[name] = {"a": a, "b": b, "difference": difference, "low": low, "high": high}
    return found  # type: ignore[return-value]
