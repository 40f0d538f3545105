"""Parquet -> rows, with their pictures or without. No id in the data is trusted: the bytes of a picture are its name."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute as compute
import pyarrow.parquet as parquet

from vlm.errors import UserError

NEEDED = ("image", "question", "answer", "source", "split")  # columns of the data


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
    task: str = ""  # training.picture.Row.task; empty where the data does not say
    style: str = ""
    references: tuple[str, ...] = ()  # what people wrote about the picture
    objects: tuple[str, ...] = ()  # names of what is known to be in it
    place: str = field(default="", compare=False, repr=False)  # the file and its row, for messages


def parquet_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise UserError(
            f"{folder} holds no parquet files. Make them with python -m training.prepare --output {folder}"
        )
    return files


def iterate_rows(
    folder: Path,
    split: str,
    source: str | Collection[str] | None = None,
    skipped: Counter[str] | None = None,
) -> Iterator[tuple[Row, bytes]]:
    """Stream rows of one split, and of one source or several, with their image bytes; memory does not grow with the data
    set. A row without a picture's bytes, or without words, is refused, or counted in `skipped`."""
    sources = {source} if isinstance(source, str) else source
    for file in parquet_files(folder):
        first = 1
        last, picture = b"", ""  # the rows about one picture stand together: it is hashed once
        for batch in batches(file):
            wanted = compute.equal(batch["split"].cast(pyarrow.string()), split)
            own = batch["source"].cast(pyarrow.string())
            if sources is not None:
                known = pyarrow.array(sorted(sources), pyarrow.string())
                wanted = compute.and_(wanted, compute.is_in(own, known))
            numbers = compute.indices_nonzero(wanted).to_pylist()
            for number, values in zip(numbers, batch.filter(wanted).to_pylist(), strict=True):
                place = f"{file.name}, row {first + number}"
                try:
                    content = picture_bytes(values["image"], place)
                    if content != last or not picture:
                        last, picture = content, hashlib.sha256(content).hexdigest()
                    row = _row(values | {"source": own[number].as_py()}, picture, place)
                except UserError:
                    if skipped is None:
                        raise
                    skipped["rows without a picture's bytes or without words"] += 1
                    continue
                yield row, content
            first += len(batch)


def sources_of(folder: Path) -> set[tuple[str, str]]:
    """Each source of the folder with each of its splits. Nothing else of the rows is read."""
    found: set[tuple[str, str]] = set()
    for file in parquet_files(folder):
        for batch in batches(file, ["source", "split"]):
            columns = [batch[name].cast(pyarrow.string()).to_pylist() for name in ("source", "split")]
            found.update(zip(*columns, strict=True))
    return found


def batches(
    file: Path, columns: list[str] | None = None, needed: Sequence[str] = NEEDED
) -> Iterator[pyarrow.RecordBatch]:
    """The rows of a file, or these columns of them as far as it has them. Raises UserError where one that is needed is
    missing, or the file is broken."""
    try:
        opened = parquet.ParquetFile(file)
        missing = [name for name in needed if name not in opened.schema_arrow.names]
        if missing:
            raise UserError(f"{file} has no column {', '.join(missing)}. Data need {', '.join(needed)}.")
        yield from opened.iter_batches(batch_size=512, columns=columns)
    except pyarrow.ArrowException as problem:
        raise UserError(f"{file} is not a whole parquet file. Make it again. ({problem})") from problem


def picture_bytes(image: Any, place: str) -> bytes:
    """The picture's bytes, alone or as `datasets.Image` stores them."""
    content = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(content, bytes):
        raise UserError(f"{place}: the bytes of the picture are missing. Store them in the column image.")
    return content


def _row(values: dict[str, Any], picture: str, place: str) -> Row:
    if not all(isinstance(values[name], str) for name in ("question", "answer")):
        raise UserError(f"{place}: the question or the answer is no text. Mend the row or take it out.")
    return Row(
        picture=picture,
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
        place=place,
    )


def read_rows(folder: Path, split: str, source: str | Collection[str] | None = None) -> list[Row]:
    return [row for row, _ in iterate_rows(folder, split, source)]


def pictures_of(
    folder: Path,
    split: str,
    source: str | Collection[str] | None = None,
    skipped: Counter[str] | None = None,
) -> Iterator[tuple[str, bytes]]:
    for row, content in iterate_rows(folder, split, source, skipped):
        yield row.picture, content
