"""A record -> its rows, with the picture inside, or what is wrong with it.

In: a `Record` and a folder of pictures. Out: a row for each answered turn, and problems. Paths in data
are not trusted: they are taken as text below the folder, so none leads out of it (a link that somebody put
into the folder is followed); absolute ones are taken where they lie in it. A picture is decoded once while
neighbouring records share it. Where a file names no split, the picture's bytes decide, so that all rows of a picture
stand in one.
"""

import hashlib
import os
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from training.config import TrainingConfig
from training.data.held_out import KeptOut
from training.data.splits import hash_fraction
from training.formats.texts import Problem, Record
from training.picture import encode, flatten_on_white
from training.untrusted import fault, leads_out
from vlm.errors import UserError
from vlm.inputs.images import open_image

MAX_SIDE = 512  # px; more than the encoder here reads (320), enough for most others
BYTES_A_TOKEN = 4  # about, of most tokenizers
LONG = f"longer than {TrainingConfig.max_tokens} tokens, the max_tokens of training"
TWIN = "looks like a held-out picture"
SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "training": "train",
    "testing": "test",
}


@dataclass(frozen=True)
class Labels:
    """What all rows of a conversion have in common."""

    source: str
    kind: str
    validation_share: float


class Stored(NamedTuple):
    """A picture as it is kept."""

    content: bytes
    picture: str  # SHA-256 of the content
    name: str
    twin: str  # the held-out picture that it looks like; empty where there is none


class PictureReader:
    """Records -> their pictures from one folder, upright, RGB, at most MAX_SIDE, encoded."""

    def __init__(self, folder: Path | None, kept_out: KeptOut | None = None) -> None:
        self.folder, self.kept_out = folder, kept_out
        self._last: tuple[bytes | tuple[str, ...], Stored | Problem] | None = None

    def read(self, record: Record) -> Stored | Problem:
        key = record.content or record.names
        if self._last is None or self._last[0] != key:
            self._last = (key, self._read(record))
        return self._last[1]

    def _read(self, record: Record) -> Stored | Problem:
        found = record.content or locate(self.folder, record.names)
        if isinstance(found, Problem):
            return found
        try:
            image = open_image(found)
        except UserError as problem:
            return Problem("broken picture", " ".join([*record.names[:1], str(problem)]))
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
        content = encode(image)
        name = "" if isinstance(found, bytes) else str(found.relative_to(self.folder or ""))
        # A file name that is not UTF-8 cannot be stored as text.
        name = name.encode(errors="replace").decode()
        twin = self.kept_out.find_twin(flatten_on_white(image)) if self.kept_out else ""
        return Stored(content, hashlib.sha256(content).hexdigest(), name, twin)


def locate(folder: Path | None, names: tuple[str, ...]) -> Path | Problem:
    """The first of `names` that is a file in `folder`."""
    names = tuple(name for name in names if name)
    if not names:
        return Problem("no picture", "the record names none")
    if folder is None:
        return Problem("missing picture", f"{names[0]}: say with --images where the pictures are")
    ways = [ways_to(name, folder) for name in names]
    for path in chain.from_iterable(ways):
        # False, and no error, where the name is too long or has a null
        if not leads_out(path) and os.path.isfile(folder / path):
            return folder / path
    outside = all(any(map(leads_out, forms)) for forms in ways)
    return Problem("outside the folder" if outside else "missing picture", names[0])


def ways_to(name: str, folder: Path) -> list[str]:
    """The paths, below the folder or not, that a name may mean: as it is written, and with slashes for backslashes."""
    written = dict.fromkeys((name, name.replace("\\", "/")))
    paths = [os.path.normpath(each) for each in written]
    for whole in (str(folder.absolute()), str(folder.resolve())):
        paths = [path.removeprefix(os.path.join(whole, "")) for path in paths]
    return paths


def rows_of(
    record: Record, number: int, reader: PictureReader, labels: Labels
) -> tuple[list[dict[str, Any]], list[Problem]]:
    """The `number`th record -> a row for each answered turn, and what is wrong with it."""
    problems = list(record.problems)
    turns = []
    for turn, (question, answer) in enumerate(record.turns):
        if reason := fault(question, "question") or fault(answer, "answer"):
            problems.append(Problem(reason, f"{question!r} - {answer!r}"))
        else:
            if tokens := too_long(question, answer):
                problems.append(Problem(LONG, f"about {tokens} tokens: {question[:60]!r}"))
            told = record.facts[turn] if record.facts else {}
            turns.append({"question": question.strip(), "answer": answer.strip(), "turn": turn} | told)
    if not turns:
        return [], problems or [Problem("malformed record", "an empty conversation")]
    split = plain_split(record.split)
    if split and split not in SPLITS:
        return [], [*problems, Problem("a split that is none of " + ", ".join(SPLITS), repr(record.split))]
    picture = reader.read(record)
    if isinstance(picture, Problem):
        return [], [*problems, picture]
    hashed = hash_fraction("validation", picture.picture) < labels.validation_share
    split = split or ("validation" if hashed else "train")
    if split == "train" and picture.twin:
        return [], [*problems, Problem(TWIN, f"{picture.name} looks like {picture.twin}".strip())]
    known = {
        "image": {"bytes": picture.content, "path": picture.name},
        "image_id": picture.picture,
        "source": labels.source,
        "kind": labels.kind,
        "split": split,
        # LLaVA's own ids repeat: they name the picture, not the conversation.
        "conversation": f"{picture.picture[:12]}-{number}" if record.ordered else "",
    }
    if record.caption:
        known |= {"task": "describe", "references": list(dict.fromkeys(turn["answer"] for turn in turns))}
    return [known | turn for turn in turns], problems


def plain_split(name: str) -> str:
    """A split by one of the names in SPLITS, where it has one; else as it is, in small letters."""
    name = name.strip().lower()
    return SPLIT_NAMES.get(name, name)


def too_long(*texts: str) -> int:
    """About how many tokens the texts of a turn have, where training would leave them out; else 0."""
    tokens = sum(len(text.encode(errors="replace")) for text in texts) // BYTES_A_TOKEN
    return tokens if tokens > TrainingConfig.max_tokens else 0
