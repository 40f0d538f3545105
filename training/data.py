"""Parquet -> rows -> conversations -> batches with answer-only labels.

Questions about one picture become one conversation of several turns, as in LLaVA (arXiv:2304.08485): the picture is
read once for many answers, which trains several times faster than one question at a time and teaches follow-up
questions. Only the texts are held in memory; features come from the `FeatureStore`.
"""

import hashlib
import random
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute as compute
import pyarrow.parquet as parquet
import torch
from torch.utils.data import Dataset

from training.augmentation import (
    NO_AUGMENTATION,
    AugmentationConfig,
    draw_view,
    is_true_of,
    view_ids,
)
from training.config import SourceConfig
from training.features import FeatureStore
from vlm.chat.tidy import to_keywords
from vlm.errors import UserError
from vlm.model.prompts import Encoded, PromptTurn, collate, encode

FRAME = 40  # characters, about, that the chat template's tokens around a question and its answer are worth


@dataclass(frozen=True)
class Row:
    """One question about one picture; `picture` is the SHA-256 of the image bytes."""

    picture: str
    question: str
    answer: str
    source: str
    kind: str
    noun: str
    accepted: tuple[str, ...]
    conversation: str = ""  # of one conversation are the rows with the same; empty: the order does not matter
    turn: int = 0
    task: str = ""  # training.instructions.Row.task; empty where the data does not say
    style: str = ""
    references: tuple[str, ...] = ()  # what people wrote about the picture
    objects: tuple[str, ...] = ()  # names of what is known to be in it


def parquet_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise UserError(
            f"{folder} holds no parquet files. Make them with python -m training.prepare --out {folder}"
        )
    return files


def iterate_rows(
    folder: Path, split: str, source: str | Collection[str] | None = None
) -> Iterator[tuple[Row, bytes]]:
    """Stream rows of one split, and of one source or several, with their image bytes; memory does not grow with the data
    set."""
    sources = {source} if isinstance(source, str) else source
    for file in parquet_files(folder):
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=512):
            wanted = compute.equal(batch["split"], split)
            if sources is not None:
                known = pyarrow.array(sorted(sources), pyarrow.string())
                wanted = compute.and_(wanted, compute.is_in(batch["source"], known))
            for values in batch.filter(wanted).to_pylist():
                yield _row(values), values["image"]["bytes"]


def _row(values: dict[str, Any]) -> Row:
    return Row(
        picture=hashlib.sha256(
            values["image"]["bytes"]
        ).hexdigest(),  # no id in the data is trusted to be unique
        question=values["question"],
        answer=values["answer"],
        source=values["source"],
        kind=values.get("kind") or "",
        noun=values.get("noun") or "",
        accepted=tuple(values.get("accepted") or ()),
        conversation=values.get("conversation") or "",
        turn=values.get("turn") or 0,
        task=values.get("task") or "",
        style=values.get("style") or "",
        references=tuple(values.get("references") or ()),
        objects=tuple(values.get("objects") or ()),
    )


def read_rows(folder: Path, split: str, source: str | None = None) -> list[Row]:
    return [row for row, _ in iterate_rows(folder, split, source)]


def pictures_of(
    folder: Path, split: str, source: str | Collection[str] | None = None
) -> Iterator[tuple[str, bytes]]:
    for row, content in iterate_rows(folder, split, source):
        yield row.picture, content


class Conversations(Dataset):
    """Rows -> conversations about one picture each, laid out for all epochs, to be read in order.

    `tags`: of each picture, for the prompt. Deterministic in `seed`, so that a resumed run sees the same examples.
    Conversations of similar length stand together, `batch_size` at a time, so that little is padded."""

    def __init__(
        self,
        rows: Sequence[Row],
        store: FeatureStore,
        tags: Mapping[str, str],
        tokenizer: Any,
        *,
        tokens_per_picture: int,
        system: str,
        style: str,
        sources: Sequence[SourceConfig],
        batch_size: int,
        epochs: int,
        tag_dropout: float,
        seed: int,
        augmentation: AugmentationConfig = NO_AUGMENTATION,
    ) -> None:
        self.store, self.tags, self.tokenizer = store, tags, tokenizer
        self.tokens_per_picture, self.system, self.style = tokens_per_picture, system, style
        self.tag_dropout, self.seed, self.augmentation = tag_dropout, seed, augmentation
        by_source: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            by_source[row.source][row.picture + row.conversation].append(row)
        missing = [source.name for source in sources if source.name not in by_source]
        if missing or not sources:
            raise UserError(
                f"The data has no source {', '.join(missing)}. It has: {', '.join(sorted(by_source))}."
            )
        self.examples: list[list[Row]] = []
        for epoch in range(epochs):
            order = random.Random(f"{seed} {epoch}")
            drawn = [
                example for source in sources for example in _draw(by_source[source.name], source, order)
            ]
            self.examples += _by_length(drawn, batch_size, order)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        rows = self.examples[index]
        picture = self._view(rows, index)
        tags = "" if self._happens("tags", index, self.tag_dropout) else self.tags.get(picture, "")
        turns = [
            PromptTurn(row.question, self._answer(row), (tags,) * (not place))
            for place, row in enumerate(rows)
        ]
        encoded = encode(self.tokenizer, turns, self.tokens_per_picture, self.system)
        return {"encoded": encoded, "patch_features": self.store[picture]}

    def _happens(self, what: str, index: int, share: float) -> bool:
        return random.Random(f"{self.seed} {index} {what}").random() < share

    def _view(self, rows: Sequence[Row], index: int) -> str:
        """The picture, or one of its views that all the answers are true of."""
        picture = rows[0].picture
        names = [name for name in view_ids(picture, self.augmentation) if name in self.store]
        views = {name: draw_view(name, self.augmentation) for name in names}
        true = [name for name, view in views.items() if all(is_true_of(view, row.task) for row in rows)]
        return random.Random(f"{self.seed} {index} view").choice([picture, *true])

    def _answer(self, row: Row) -> str:
        return to_keywords(row.answer) if self.style == "keywords" else row.answer


def _draw(pictures: dict[str, list[Row]], source: SourceConfig, order: random.Random) -> Iterator[list[Row]]:
    """Each picture or conversation `share` times on average, each time with other questions. The questions of an ordered
    conversation stay together: its first `turns` are taken."""
    for every_row in pictures.values():
        rows = [row for row in every_row if not source.tasks or row.task in source.tasks]
        times = int(source.share) + (order.random() < source.share % 1) if rows else 0
        for _ in range(times):
            if rows[0].conversation:
                yield sorted(rows, key=lambda row: row.turn)[: source.turns]
            else:
                yield order.sample(rows, min(source.turns, len(rows)))


def _by_length(examples: list[list[Row]], batch_size: int, order: random.Random) -> list[list[Row]]:
    """Shuffled batches whose members are of similar length."""

    def length(rows: list[Row]) -> int:
        return sum(len(row.question) + len(row.answer) + FRAME for row in rows)

    order.shuffle(examples)
    window = 32 * batch_size
    batches = []
    for start in range(0, len(examples), window):
        alike = sorted(examples[start : start + window], key=length)
        batches += [alike[first : first + batch_size] for first in range(0, len(alike), batch_size)]
    order.shuffle(batches)
    return [example for batch in batches for example in batch]


class Collator:
    """Examples -> the model's forward arguments, padded on the right."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        encoded: list[Encoded] = [example["encoded"] for example in examples]
        features = torch.stack([example["patch_features"] for example in examples])
        return collate(encoded, self.pad_id)._asdict() | {"patch_features": features}
