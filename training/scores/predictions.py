"""A file of predictions -> what each line knows. JSON lines, a JSON list, or a result file of training.evaluate."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlm.errors import UserError, not_readable

KEYS = """\
  answer (or caption)     what the model said
  references              a list of sentences that people wrote, for captions
  answers                 a list of the answers of VQA's ten people
  picture (or image_id)   which picture the line is about, for the intervals and --references
  image                   a path below the file's folder, for CLIPScore
  ranked, relevant        lists of ids: those found, best first, and the right ones
  log_likelihood, tokens  numbers: in nats, and of how many tokens"""
OTHER_NAMES = {"caption": "answer", "image_id": "picture"}
TEXT, TEXTS, NUMBER = "a text", "a list of texts", "a number"
KINDS = {
    "answer": TEXT,
    "references": TEXTS,
    "answers": TEXTS,
    "picture": TEXT,
    "image": TEXT,
    "log_likelihood": NUMBER,
    "tokens": NUMBER,
    "ranked": TEXTS,
    "relevant": TEXTS,
}


@dataclass(frozen=True)
class Prediction:
    """One line. None or empty: the line does not say."""

    answer: str | None = None
    references: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    picture: str = ""
    image: Path | None = None
    log_likelihood: float | None = None
    tokens: float | None = None
    ranked: tuple[str, ...] = ()
    relevant: tuple[str, ...] = ()


def read_predictions(file: Path) -> list[Prediction]:
    """UserError that names the line where one is not as it should be."""
    lines = _lines_of(file)
    found = [
        _prediction(values, f"{file.name}, line {number}", file.parent) for number, values in lines.items()
    ]
    if not found:
        raise UserError(f"{file} holds no predictions. Give a file with a line of JSON for each.")
    return found


def _lines_of(file: Path) -> dict[int, Any]:
    """Number -> line."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(not_readable(file, error)) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not text in UTF-8. Save it again as UTF-8.") from error
    try:
        if file.suffix == ".json":
            whole = json.loads(text)
            listed = whole.get("answers") if isinstance(whole, dict) else whole  # of training.evaluate
            return dict(enumerate(listed, 1)) if isinstance(listed, list) else {}
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{file} is not JSON: {error}. Lines of JSON belong in a file named .jsonl."
        ) from error
    numbered = enumerate(text.split("\n"), 1)  # splitlines() also divides at U+2028, which an answer may hold
    return {number: _line(line, f"{file.name}, line {number}") for number, line in numbered if line.strip()}


def _line(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {text.strip()[:60]}. Write an object a line.") from error


def _prediction(values: Any, where: str, folder: Path) -> Prediction:
    if not isinstance(values, dict):
        raise UserError(f"{where} is no JSON object.")
    known = {OTHER_NAMES.get(name, name): value for name, value in values.items()}
    found: dict[str, Any] = {name: _checked(known[name], name, where) for name in KINDS if name in known}
    if not found:
        raise UserError(
            f"{where} has none of the keys {', '.join(KINDS)}. It has: {', '.join(values) or 'none'}."
        )
    if "image" in found:
        found["image"] = folder / found["image"]
    return Prediction(**found)


def _checked(value: Any, name: str, where: str) -> Any:
    kind = KINDS[name]
    if kind is TEXT and isinstance(value, str | int):
        return str(value)
    if kind is TEXTS and isinstance(value, list) and all(isinstance(each, str | int) for each in value):
        return tuple(map(str, value))
    if kind is NUMBER and isinstance(value, int | float):
        return float(value)
    raise UserError(f"{where}: {name!r} must be {kind}.")


def with_references(predictions: Sequence[Prediction], file: Path) -> list[Prediction]:
    """The predictions; those without references get the captions of their picture in COCO's annotation file."""
    try:
        annotations = json.loads(file.read_text(encoding="utf-8"))["annotations"]
        captions = _by_picture(annotations)
    except OSError as error:
        raise UserError(not_readable(file, error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no annotation file of COCO's captions ({error!r}).") from error
    missing = sorted({each.picture for each in predictions if not each.references} - set(captions))
    if missing:
        raise UserError(f"{file} has no captions of the picture {missing[0]!r} and {len(missing) - 1} more.")
    return [
        each if each.references else replace(each, references=tuple(captions[each.picture]))
        for each in predictions
    ]


def _by_picture(annotations: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    for each in annotations:
        captions.setdefault(str(each["image_id"]), []).append(each["caption"])
    return captions
