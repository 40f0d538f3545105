"""Predictions -> every measure that their lines allow, with its interval; and why the others are left out."""

from collections.abc import Sequence
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from training.scores.captions import BLEU_COLUMNS, ORDERS, bleu, bleu_counts, cider, meteor, rouge_l
from training.scores.clip_score import clip_scores
from training.scores.measures import OfSums, mean_of, to_sum, totals_of
from training.scores.predictions import Prediction
from training.scores.retrieval import RECALLS, average_precision, first_rank
from training.scores.spice import spice
from training.scores.vqa import vqa_accuracy
from vlm.errors import UserError

Column = list[float | None]  # a number for each prediction; None where it has none
CAPTION, ANSWERS, IMAGES = "`answer` and `references`", "`answer` and `answers`", "`answer` and `image`"
RANKING, LIKELIHOOD = "`ranked` and `relevant`", "`log_likelihood` and `tokens`"


# The keys that it takes, the column whose lines it is of, and its value
MEASURES: dict[str, tuple[str, str, OfSums]] = {
    **{f"bleu_{n}": (CAPTION, "bleu_words", partial(bleu, order=n)) for n in ORDERS},
    **{
        name: (CAPTION, name, mean_of(name))
        for name in ("rouge_l", "meteor_exact_and_stem", "cider", "spice")
    },
    "clip_score": (IMAGES, "clip_score", mean_of("clip_score")),
    "vqa_accuracy": (ANSWERS, "vqa_accuracy", mean_of("vqa_accuracy")),
    **{f"recall@{k}": (RANKING, f"recall@{k}", mean_of(f"recall@{k}")) for k in RECALLS},
    "mean_average_precision": (RANKING, "mean_average_precision", mean_of("mean_average_precision")),
    "perplexity": (LIKELIHOOD, "tokens", lambda sums: np.exp(-sums["log_likelihood"] / sums["tokens"])),
}


class Scores(NamedTuple):
    """Measure -> value, low, high, of; and measure -> why there is none."""

    measures: dict[str, dict[str, Any]]
    left_out: dict[str, str]


def score(predictions: Sequence[Prediction], judge: Any = None) -> Scores:
    """Means over the lines that have what a measure needs; BLEU and perplexity over all of their words. `judge` puts
    pictures and texts in one space, for CLIPScore."""
    columns, left_out = columns_of(predictions, judge)
    values = {name: column for name, column in columns.items() if any(each is not None for each in column)}
    if not values:
        raise UserError(
            f"No line has what a measure needs: {CAPTION} for captions, {ANSWERS} for VQA, {RANKING} for rankings, "
            f"{LIKELIHOOD} for perplexity, or {IMAGES} and --judge for CLIPScore."
        )
    pictures = [each.picture or f"line {place}" for place, each in enumerate(predictions)]
    measures = {
        name: (value, itemgetter(f"{column} of"))
        for name, (_, column, value) in MEASURES.items()
        if column in values
    }
    found = totals_of(pictures, to_sum(values), measures)
    for name, (keys, _, _) in MEASURES.items():
        if name not in found:
            without_judge = name == "clip_score" and not judge
            left_out.setdefault(name, "it takes --judge" if without_judge else f"no line has {keys}")
    return Scores(found, left_out)


def columns_of(predictions: Sequence[Prediction], judge: Any) -> tuple[dict[str, Column], dict[str, str]]:
    """Name -> a number for each prediction, and why some are missing."""
    captioned = [
        place for place, each in enumerate(predictions) if each.answer is not None and each.references
    ]
    columns, left_out = _wording(predictions, captioned)
    columns["vqa_accuracy"] = [
        vqa_accuracy(each.answer, each.answers) if each.answer is not None and each.answers else None
        for each in predictions
    ]
    if judge:
        pictured = [place for place, each in enumerate(predictions) if each.answer is not None and each.image]
        scored = clip_scores([predictions[place] for place in pictured], judge)
        columns["clip_score"] = _spread(scored, pictured, len(predictions))
    return columns | _rankings(predictions) | _likelihoods(predictions), left_out


def _wording(
    predictions: Sequence[Prediction], captioned: Sequence[int]
) -> tuple[dict[str, Column], dict[str, str]]:
    said = [str(predictions[place].answer) for place in captioned]
    references = [predictions[place].references for place in captioned]
    pairs = list(zip(said, references, strict=True))
    counts = [bleu_counts(*pair) for pair in pairs]
    found = {name: [each[name] for each in counts] for name in BLEU_COLUMNS}
    found["rouge_l"] = [rouge_l(*pair) for pair in pairs]
    found["meteor_exact_and_stem"] = [meteor(*pair) for pair in pairs]
    found["cider"] = cider(said, references)
    left_out = {}
    if pairs:
        scored = spice(said, references)
        if isinstance(scored, str):
            left_out["spice"] = scored
        else:
            found["spice"] = scored
    return {name: _spread(column, captioned, len(predictions)) for name, column in found.items()}, left_out


def _rankings(predictions: Sequence[Prediction]) -> dict[str, Column]:
    columns: dict[str, Column] = {name: [] for name, (keys, _, _) in MEASURES.items() if keys == RANKING}
    for each in predictions:
        rank = first_rank(each.ranked, each.relevant) if each.relevant else None
        for k in RECALLS:
            columns[f"recall@{k}"].append(None if rank is None else float(rank <= k))
        precision = average_precision(each.ranked, each.relevant) if each.relevant else None
        columns["mean_average_precision"].append(precision)
    return columns


def _likelihoods(predictions: Sequence[Prediction]) -> dict[str, Column]:
    known = [each.log_likelihood is not None and bool(each.tokens) for each in predictions]
    return {
        name: [getattr(each, name) if there else None for each, there in zip(predictions, known, strict=True)]
        for name in ("log_likelihood", "tokens")
    }


def _spread(values: Sequence[float], places: Sequence[int], count: int) -> Column:
    column: Column = [None] * count
    for place, value in zip(places, values, strict=True):
        column[place] = value
    return column
