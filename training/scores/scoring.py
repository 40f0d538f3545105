"""Answers beside their truths -> every measure with its interval, for all of them and for each group.

In: rows and answers. Out: items, plain dictionaries as they stand in the result file, and from items alone the totals; so
training/compare.py and training/report.py need no model. Unusual: each measure is a function of sums over the
examples (bootstrap.py), and a measure that an example does not have (balance for a question that is not yes or no) is
absent there and is not counted.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from training.data import Row
from training.phrases import sentence, with_article
from training.scores.bootstrap import Sums, interval, resampled_sums
from training.scores.captions import (
    BLEU_COLUMNS,
    ORDERS,
    SPICE_MISSING,
    bleu,
    bleu_counts,
    cider,
    meteor,
    rouge_l,
    tokens,
)
from training.scores.metrics import (
    chosen_option,
    is_exact,
    names_one_of,
    normalise,
    options_of,
    repeats,
    share,
    vqa_accuracy,
    yes_or_no,
)
from vlm.chat.meaning import keeps_meaning
from vlm.chat.words import to_keywords

NAMING = ("name", "describe")
GROUPS = ("task", "kind", "style", "source")
MEANS = {  # score of an example -> its total's name
    "right": "accuracy",
    "blank_picture": "blank_picture",
    "shuffled_pictures": "shuffled_pictures",
    "question_only": "question_only",
    "exact": "exact_match",
    "vqa": "vqa_accuracy",
    "noun": "noun_accuracy",
    "choice": "choice_accuracy",
    "rouge_l": "rouge_l",
    "meteor": "meteor_exact_and_stem",
    "cider": "cider",
    "repeats": "repetition_rate",
    "ended": "ended_by_itself",
    "words": "words",
}
POLAR = ("yes_yes", "yes_no", "yes_other", "no_yes", "no_no", "no_other")  # truth_answer
SUMMED = ("nats", "tokens")  # of the reference answer: minus log likelihood, and its length


def is_right(row: Row, answer: str, sentences: bool = False) -> bool:
    """By the task: the noun named, yes or no as in the truth, the right option alone, else equal words. `sentences`: the
    answer was cleaned up, and "The ball is red." says what "Red." says (vlm.chat.meaning)."""
    if polar := polar_truth(row):
        return yes_or_no(answer) == polar
    if row.task == "choice" and (options := options_of(row.question)):
        return to_keywords(chosen_option(answer, options)) == to_keywords(row.answer)
    if row.noun and row.task in ("", *NAMING, "choice"):
        return names_one_of(answer, (row.noun, *row.accepted))
    return is_exact(answer, row.answer) or (sentences and keeps_meaning(row.answer, answer, row.question)[0])


def polar_truth(row: Row) -> str:
    """ "yes" or "no" for the questions that instructions.py made to be answered so, else empty."""
    return row.task if row.task in ("yes", "no") else ""


def bare_truth(row: Row) -> str:
    """The same, and for other data's questions that are answered by that word alone."""
    said = normalise(row.answer)
    return polar_truth(row) or (said if said in ("yes", "no") and row.task in ("", "vqa") else "")


def references_of(row: Row) -> list[str]:
    """The answer, and for a naming question the other nouns that are accepted, each as a sentence."""
    others = [sentence(with_article(noun)) for noun in row.accepted] if row.task == "name" else []
    return list(dict.fromkeys([row.answer, *others]))


def in_keywords(row: Row) -> Row:
    """What would be right where answers are given in keywords."""
    accepted = tuple(to_keywords(noun) for noun in row.accepted)
    return replace(row, answer=to_keywords(row.answer), noun=to_keywords(row.noun), accepted=accepted)


def make_item(row: Row, answer: str, sentences: bool = False, **scores: float | None) -> dict[str, Any]:
    """One answer with all that is known of it; `scores` are what only the model and the baselines know."""
    references = references_of(row)
    right = is_right(row, answer, sentences)
    own: dict[str, float | None] = {
        "right": right,
        "exact": is_exact(answer, row.answer),
        "vqa": vqa_accuracy(answer, references),
        "rouge_l": rouge_l(answer, references),
        "meteor": meteor(answer, references),
        "repeats": repeats(answer),
        "words": len(tokens(answer)),
    }
    if row.noun and row.task in ("", *NAMING):
        own["noun"] = names_one_of(answer, (row.noun, *row.accepted))
    if row.task == "choice":
        own["choice"] = right
    if truth := bare_truth(row):
        own[f"{truth}_{yes_or_no(answer) or 'other'}"] = 1
    counts = bleu_counts(answer, references)
    own |= {
        f"bleu_{n}": _number(bleu({name: np.array([x]) for name, x in counts.items()}, n)) for n in ORDERS
    }
    given = own | {name: score for name, score in scores.items() if score is not None}
    return {
        "picture": row.picture,
        "question": row.question,
        "truth": row.noun if row.noun and row.task in ("", "name") else row.answer,
        "answer": answer,
        **{name: getattr(row, name) for name in GROUPS},
        "references": references,
        "right": right,
        "scores": {name: None if score is None else float(score) for name, score in given.items()},
    }


def _number(values: np.ndarray) -> float | None:
    return float(values[0]) if np.isfinite(values[0]) else None


def add_cider(items: Sequence[dict[str, Any]]) -> None:
    """CIDEr looks at all references at once, so it is added when the items are together."""
    scores = cider([item["answer"] for item in items], [item["references"] for item in items])
    for item, score in zip(items, scores, strict=True):
        item["scores"]["cider"] = score


def columns_of(items: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """n items -> columns [n] to be summed: each mean's score and where there is one, counts of BLEU and the like."""
    columns: dict[str, np.ndarray] = {}
    for name in MEANS:
        found = [item["scores"].get(name) for item in items]
        columns[name] = np.array([score or 0.0 for score in found])
        columns[f"{name} of"] = np.array([float(score is not None) for score in found])
    for name in (*POLAR, *SUMMED):
        columns[name] = np.array([item["scores"].get(name) or 0.0 for item in items])
    counts = [bleu_counts(item["answer"], item["references"]) for item in items]
    return columns | {name: np.array([each[name] for each in counts]) for name in BLEU_COLUMNS}


OfSums = Callable[[Sums], np.ndarray]


def _mean(score: str) -> tuple[OfSums, OfSums]:
    return (lambda sums: sums[score] / sums[f"{score} of"]), (lambda sums: sums[f"{score} of"])


def _polar(sums: Sums, truth: str = "") -> np.ndarray:
    """How many are asked for a yes or no, or for the one that is given."""
    return np.sum([sums[name] for name in POLAR if name.startswith(truth)], axis=0)


def _measures() -> dict[str, tuple[OfSums, OfSums]]:
    """Name -> (value, number of examples), both of sums. "Hallucination" is POPE's (arXiv:2305.10355): yes to what is not
    there; an answer that is neither yes nor no is not a yes."""
    measures = {total: _mean(score) for score, total in MEANS.items()}
    for n in ORDERS:
        measures[f"bleu_{n}"] = (lambda sums, n=n: bleu(sums, n)), (lambda sums: sums["exact of"])  # type: ignore
    measures["perplexity"] = (lambda s: np.exp(s["nats"] / s["tokens"])), (lambda s: s["exact of"])
    polar: dict[str, OfSums] = {
        "balanced_accuracy": lambda s: (s["yes_yes"] / _polar(s, "yes") + s["no_no"] / _polar(s, "no")) / 2,
        "yes_rate": lambda s: (s["yes_yes"] + s["no_yes"]) / _polar(s),
        "hallucination_precision": lambda s: s["yes_yes"] / (s["yes_yes"] + s["no_yes"]),
        "hallucination_recall": lambda s: s["yes_yes"] / _polar(s, "yes"),
        "hallucination_f1": lambda s: 2 * s["yes_yes"] / (s["yes_yes"] + s["no_yes"] + _polar(s, "yes")),
    }
    return measures | {name: (value, _polar) for name, value in polar.items()}


MEASURES = _measures()


def measure(sums: Sums, name: str) -> np.ndarray:
    """One measure of summed columns, [1 + resamples]; not a number where nothing has it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return MEASURES[name][0](sums)


def totals(items: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Items -> {measure: value, low, high, of}; value None where no item has it. Intervals: 95 %, by pictures."""
    found = _totals([item["picture"] for item in items], columns_of(items))
    return found | {"spice": {"value": None, "low": None, "high": None, "of": 0, "reason": SPICE_MISSING}}


def _totals(pictures: Sequence[str], columns: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    sums = resampled_sums(pictures, columns)
    found: dict[str, dict[str, Any]] = {}
    for name, (_, number) in MEASURES.items():
        value, low, high = interval(measure(sums, name))
        of = int(number(sums)[0]) if value is not None else 0
        found[name] = {"value": value, "low": low, "high": high, "of": of}
    return found


def by_group(items: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Scores by task, kind, style and source, where the items say theirs."""
    columns = columns_of(items)
    found: dict[str, dict[str, Any]] = {}
    for group in GROUPS:
        of_items = [_group_of(item, group) for item in items]
        for name in sorted(set(of_items) - {""}):
            chosen = [index for index, of_item in enumerate(of_items) if of_item == name]
            accuracy = share([items[index]["right"] for index in chosen])._asdict()
            pictures = [items[index]["picture"] for index in chosen]
            scores = _totals(pictures, {key: column[chosen] for key, column in columns.items()})
            metrics = {key: score for key, score in scores.items() if score["value"] is not None}
            found.setdefault(group, {})[name] = {"n": len(chosen), "accuracy": accuracy, "metrics": metrics}
    return found


def _group_of(item: dict[str, Any], group: str) -> str:
    value = item.get(group) or ""
    return "yes_no" if group == "task" and value in ("yes", "no") else value
