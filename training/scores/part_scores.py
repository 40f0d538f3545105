"""A trained model -> what it knows of held-out pictures, and what it would say without them.

The same questions are asked four times: with the picture, with a white one, with another question's picture, and with none.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from training.data import Row, pictures_of
from training.data.features import FeatureStore
from training.scores.answering import BLANK, blank_picture
from training.scores.batch_answers import FeatureQuestion, answer_in_batches
from training.scores.items import make_items
from training.scores.measures import totals
from training.scores.metrics import share
from training.scores.retrieval import modality_gap
from training.scores.selection import NoQuestions, Options, other_pictures, questions_of
from vlm.errors import UserError
from vlm.inputs.images import open_image
from vlm.model.vlm import VisionLanguageModel

SPLIT = "validation"
QUESTIONS = {  # what is asked: Options of training.scores.selection
    "captions": Options("flickr8k", SPLIT, "describe", limit=100),
    "yes_or_no": Options("coco-train2017,ade20k", SPLIT, "presence", limit=150),
    "nouns": Options("caltech101", SPLIT, "name", limit=100),
}
KEPT = {  # of each, the measures that the comparison tells
    "captions": ("cider", "bleu_4", "chair_i", "chair_s", "words"),
    "yes_or_no": ("balanced_accuracy", "yes_rate", "hallucination_precision", "hallucination_recall", "hallucination_f1"),
    "nouns": ("noun_accuracy",),
}  # fmt: skip
VARIANTS = ("picture", "blank_picture", "other_picture", "no_picture")

Features = Mapping[str, Tensor]  # patch features [N, Dv] by the picture's id


def chosen_questions(folder: Path, limit: int | None = None) -> dict[str, list[Row]]:
    """The questions of the comparison, `limit` of each kind at most; a kind that the folder has no source of is left out.
    Raises UserError where it has none at all."""
    found = {}
    for kind, options in QUESTIONS.items():
        try:
            found[kind] = questions_of(folder, options)[:limit]
        except NoQuestions:
            continue
    if not found:
        raise UserError(
            f"{folder} has no validation pictures of flickr8k, coco-train2017, ade20k or caltech101."
        )
    return found


def asked_features(
    folder: Path, store: FeatureStore, encoder: Any, questions: Mapping[str, Sequence[Row]]
) -> Features:
    """Of the pictures that are asked about, encoded where they are not yet, and of the white one."""
    names = {row.picture for rows in questions.values() for row in rows}
    store.fill(pictures_of(folder, SPLIT), names, encoder)
    with torch.inference_mode():
        blank = encoder.see([open_image(blank_picture().content)])[0].float().cpu()
    return {name: store[name].float() for name in sorted(names)} | {BLANK: blank}


def score_parts(
    model: VisionLanguageModel, questions: Mapping[str, Sequence[Row]], features: Features, system: str
) -> dict[str, Any]:
    """Variant -> kind of question -> measures with intervals; how often another picture changes nothing; the gap between
    pictures and words; every answer."""
    model.eval()
    rows = [row for of_kind in questions.values() for row in of_kind]
    answers = {name: _answers(model, rows, features, system, name) for name in VARIANTS}
    scores = {name: _measured(questions, said) for name, said in answers.items()}
    same = [a == b for a, b in zip(answers["picture"], answers["other_picture"], strict=True)]
    return {
        "scores": scores,
        "unmoved_by_another_picture": share(same)._asdict(),
        "modality_gap": _gap(model, rows, features),
        "answers": [
            {"picture": row.picture, "question": row.question, "truth": row.answer}
            | {name: said[place] for name, said in answers.items()}
            for place, row in enumerate(rows)
        ],
    }


def _answers(
    model: VisionLanguageModel, rows: Sequence[Row], features: Features, system: str, variant: str
) -> list[str]:
    """What is the same is asked once: many questions about no picture are."""
    other = other_pictures([row.picture for row in rows])
    shown = {
        "picture": lambda row: row.picture,
        "blank_picture": lambda row: BLANK,
        "other_picture": lambda row: other[row.picture],
        "no_picture": lambda row: None,
    }[variant]
    pairs = [(row.question, shown(row)) for row in rows]
    once = list(dict.fromkeys(pairs))
    asked = [FeatureQuestion(question, None if name is None else features[name]) for question, name in once]
    said = dict(zip(once, answer_in_batches(model, asked, system), strict=True))
    return [said[pair] for pair in pairs]


def _measured(questions: Mapping[str, Sequence[Row]], answers: Sequence[str]) -> dict[str, Any]:
    found, start = {}, 0
    for kind, rows in questions.items():
        measures = totals(make_items(rows, answers[start : start + len(rows)]))
        found[kind] = {name: measures[name] for name in KEPT[kind] if measures[name]["value"] is not None}
        start += len(rows)
    return found


@torch.inference_mode()
def _gap(model: VisionLanguageModel, rows: Sequence[Row], features: Features) -> float | None:
    """Between pictures, each the mean of its visual tokens, and their captions, each the mean of its word embeddings, all
    of unit length (arXiv:2203.02053)."""
    captioned = list({row.picture: row for row in rows if row.references}.values())
    if not captioned:
        return None
    weight = next(model.connector.parameters())
    seen = torch.stack([features[row.picture] for row in captioned]).to(weight.device, weight.dtype)
    pictures = model.connector(seen).float().mean(1)
    texts = torch.stack([_mean_word(model, row.references[0]) for row in captioned])
    return modality_gap(functional.normalize(pictures, dim=-1), functional.normalize(texts, dim=-1))


def _mean_word(model: VisionLanguageModel, text: str) -> Tensor:
    ids = torch.tensor(model.language.tokenizer(text, add_special_tokens=False)["input_ids"])
    return model.language.embed(ids).float().mean(0)
