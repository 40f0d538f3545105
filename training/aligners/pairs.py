"""Parquet -> pictures with the texts that are true of them -> the pairs that an aligner learns from.

What people wrote about a picture are its texts; of one that has a name, the name in several templates (CLIP's prompts,
arXiv:2103.00020); of one whose things are known, lists of them.
"""

import hashlib
import io
import random
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from training.config import PairSource
from training.data import Row, iterate_rows
from training.data.augmentation import (
    NO_AUGMENTATION,
    AugmentationConfig,
    draw_view,
    keeps_sides,
    open_view,
    view_ids,
)
from training.wording.questions import DESCRIBE, LONG, SHORT
from vlm.chat.search import TEMPLATES
from vlm.errors import UserError

LISTS = 3  # of a picture's things, each of some of them
LONGEST_LIST = 5

DESCRIBED = re.compile(r"\b(?:describe|description|caption)\b", re.IGNORECASE)  # questions of converted data


@dataclass
class Captioned:
    """A picture by its SHA-256, and every text that is true of it."""

    picture: str
    source: str
    name: str = ""  # what is on it, where one thing is
    names: tuple[str, ...] = ()  # and what else it may be called
    captions: list[str] = field(default_factory=list)
    things: set[str] = field(default_factory=set)

    def texts(self, without: frozenset[str] = frozenset()) -> list[str]:
        """Captions, else names that are not among `without` (lower case), else lists of things."""
        if self.captions:
            return self.captions
        if self.name:
            names = [] if self.name.lower() in without else [self.name, *self.names]
            known = [name for name in names if name.lower() not in without]
            return [template.format(name) for name in known for template in TEMPLATES]
        return self._lists(sorted(thing for thing in self.things if thing.lower() not in without))

    def _lists(self, things: Sequence[str]) -> list[str]:
        rng = random.Random(self.picture)
        lists = [
            rng.sample(things, rng.randint(1, min(len(things), LONGEST_LIST))) for _ in range(LISTS) if things
        ]
        return [", ".join(each) for each in lists]


@dataclass(frozen=True)
class PairData:
    """`held_out` are the data's validation pictures: looked at once, when training is over."""

    train: list[Captioned]
    validation: list[Captioned]
    held_out: list[Captioned]
    skipped: Counter[str]  # why -> rows

    def without(self, broken: Collection[str]) -> "PairData":
        """All but these pictures."""
        train, validation, held_out = (
            [each for each in some if each.picture not in broken]
            for some in (self.train, self.validation, self.held_out)
        )
        return PairData(train, validation, held_out, self.skipped)


def read_pairs(folder: Path, sources: Iterable[str], validation_share: float) -> PairData:
    """The pictures of `sources` in every split. Rows without any text, or with broken bytes, are counted and skipped;
    what is broken further on is found when it is read (`PairData.without`)."""
    wanted, skipped = set(sources), Counter[str]()
    split_pictures = {split: _captioned(folder, split, wanted, skipped) for split in ("train", "validation")}
    train: list[Captioned] = []
    validation: list[Captioned] = []
    for each in split_pictures["train"]:
        (validation if hash_share(each.picture) < validation_share else train).append(each)
    return PairData(train, validation, split_pictures["validation"], skipped)


def _captioned(folder: Path, split: str, sources: set[str], skipped: Counter[str]) -> list[Captioned]:
    found: dict[str, Captioned] = {}
    broken: set[str] = set()
    for row, content in iterate_rows(folder, split, sources, skipped):
        if row.picture in broken:
            continue
        if row.picture not in found:
            if not is_picture(content):
                broken.add(row.picture)
                skipped["broken pictures"] += 1
                continue
            found[row.picture] = Captioned(row.picture, row.source)
        _add(found[row.picture], row)
    with_text = [each for each in found.values() if each.texts()]
    skipped["pictures without text"] += len(found) - len(with_text)
    return with_text


def _add(picture: Captioned, row: Row) -> None:
    """What the row tells about its picture."""
    if row.references:
        texts = [text for each in row.references if (text := each.strip())]
        picture.captions = list(dict.fromkeys([*picture.captions, *texts]))
    elif row.task == "name" and row.noun:
        picture.name = row.noun
        picture.names = tuple(sorted({*picture.names, *row.accepted} - {row.noun}))
    # Converted data may say no task. The answers to other questions, such as "Yes.", are no captions.
    elif not row.task and not row.noun and is_description(row.question) and row.answer.strip():
        picture.captions = list(dict.fromkeys([*picture.captions, row.answer.strip()]))
    picture.things.update(row.objects)


def is_description(question: str) -> bool:
    """Whether a description is asked for."""
    return question in (*DESCRIBE, *SHORT, *LONG) or bool(DESCRIBED.search(question))


def is_picture(content: bytes) -> bool:
    """Whether the bytes begin as a picture does that can be read."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return min(image.size) > 0
    except (OSError, ValueError, Image.DecompressionBombError):
        return False


def damaged(contents: Iterable[tuple[str, bytes]]) -> set[str]:
    """Those of the (id, image bytes) that begin as pictures do and cannot be read to their end."""
    found = set()
    for picture, content in contents:
        try:
            open_view(picture, content, NO_AUGMENTATION)
        except UserError:
            found.add(picture)
    return found


def hash_share(name: str) -> float:
    """Text -> [0, 1), the same on every machine."""
    return int(hashlib.sha256(f"aligner {name}".encode()).hexdigest()[:12], 16) / 16**12


def names_of(pictures: Iterable[Captioned], source: str) -> frozenset[str]:
    """In lower case."""
    return frozenset(each.name.lower() for each in pictures if each.source == source and each.name)


@dataclass(frozen=True)
class Pair:
    """A picture, or a view of it, and a text of it. What has the same numbers belongs together."""

    view: str
    text: str
    picture_number: int
    text_number: int
    has_text: bool = True  # false: text dropout took it


class Pairs(Dataset):
    """Pairs of all epochs, to be read in order: deterministic in `seed`, so that a resumed run sees the same ones."""

    def __init__(
        self,
        pictures: Sequence[Captioned],
        texts: Mapping[str, Sequence[str]],
        sources: Sequence[PairSource],
        *,
        epochs: int,
        text_dropout: float,
        augmentation: AugmentationConfig,
        seed: int,
    ) -> None:
        shares = {source.name: source.share for source in sources}
        self.pairs: list[Pair] = []
        numbers: dict[str, int] = {}
        for epoch in range(epochs):
            rng = random.Random(f"{seed} {epoch}")
            drawn = list(_draw(pictures, shares, rng))
            rng.shuffle(drawn)
            for place, each in drawn:
                text = rng.choice(texts[each.picture])
                view = rng.choice([each.picture, *view_ids(each.picture, augmentation)])
                if view != each.picture and not keeps_sides(draw_view(view, augmentation), text):
                    view = each.picture
                number = numbers.setdefault(text.lower(), len(numbers))
                self.pairs.append(Pair(view, text, place, number, rng.random() >= text_dropout))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[index]


def _draw(
    pictures: Sequence[Captioned], shares: Mapping[str, float], rng: random.Random
) -> Iterator[tuple[int, Captioned]]:
    for place, each in enumerate(pictures):
        share = shares[each.source]
        for _ in range(int(share) + (rng.random() < share % 1)):
            yield place, each


def facts_of(data: PairData) -> list[Any]:
    """What the pairs are made of, the same in every process."""
    pictures = [*data.train, *data.validation]
    return [
        (each.picture, each.source, each.name, each.names, each.captions, sorted(each.things))
        for each in pictures
    ]
