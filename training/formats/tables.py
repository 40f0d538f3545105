"""Tables that people have -> records: PixMo's parquet files, and anything the `datasets` package opens.

In: a parquet file, or the name of a data set with its columns. Out: a `Record` for each row, in order, a batch
in memory at a time. PixMo names its pictures by address and SHA-256, and nothing is fetched from
there: they must lie in the folder already. `datasets` is optional, and is asked not to decode pictures, since
vlm/inputs/images.py does it more carefully; a data set on the hub is streamed.
"""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from training.formats.texts import Record, describing_question, malformed
from vlm.errors import UserError
from vlm.inputs.images import MAX_PICTURE_BYTES

BATCH = 64  # rows; with their pictures inside about 100 MB
ENDINGS = ("", ".jpg", ".jpeg", ".png", ".webp", ".gif")
PIXMO_COLUMNS = ("image", "image_url", "image_sha256", "question", "answer", "caption")


def from_pixmo(file: Path) -> Iterator[Record]:
    """PixMo-Cap (caption), PixMo-AskModelAnything and PixMo-CapQA (question, answer); `transcripts` are not read."""
    try:
        table = pq.ParquetFile(file)
        present = [name for name in PIXMO_COLUMNS if name in table.schema_arrow.names]
        if "caption" not in present and not {"question", "answer"} <= set(present):
            raise UserError(
                f"{file} needs a column caption, or question and answer. "
                f"It has: {', '.join(table.schema_arrow.names)}."
            )
        for batch in table.iter_batches(batch_size=BATCH, columns=present):
            for values in batch.to_pylist():
                yield pixmo_record(values)
    except (pa.ArrowException, OSError) as problem:
        raise UserError(f"{file} is not a whole parquet file; download it again. ({problem})") from problem


def pixmo_record(values: dict[str, Any]) -> Record:
    """Pictures inside the row come before files named by SHA-256, and these before files named by address."""
    content, names = picture_in_cell(values.get("image"))
    sha256, address = str(values.get("image_sha256") or ""), str(values.get("image_url") or "")
    if sha256:
        names += tuple(sha256 + ending for ending in ENDINGS)
    if name := last_part(address):
        names += (name,)
    captioned = not ("question" in values and "answer" in values)
    if not captioned:
        question, answer = values["question"], values["answer"]
        if isinstance(question, str):  # CapQA marks who speaks
            question = question.strip().removeprefix("[USER]").removesuffix("[ASSISTANT]")
    else:
        answer = values["caption"]
        question = describing_question(sha256 or address, str(answer))
    return Record(names=names, content=content, turns=((question, answer),), caption=captioned)


def last_part(address: str) -> str:
    """https://host/a/big%20dog.jpg?size=2 -> big dog.jpg"""
    try:
        return PurePosixPath(unquote(urlsplit(address).path)).name
    except ValueError:  # "http://[": no address at all
        return ""


def picture_in_cell(value: Any, folder: Path | None = None) -> tuple[bytes | None, tuple[str, ...]]:
    """A cell -> (content, names). `datasets` names files by absolute paths: those in `folder` are made relative."""
    if isinstance(value, dict):
        content, path = value.get("bytes"), value.get("path")
    else:
        content, path = (value, None) if isinstance(value, bytes) else (None, value)
    if isinstance(content, bytes) and content:
        return content, ()
    if not isinstance(path, str) or not path:
        return None, ()
    if path.split("::")[-1].startswith("hf://"):  # a folder of pictures on the hub, or an archive of them
        with importlib.import_module("fsspec").open(path, "rb") as remote:
            return remote.read(MAX_PICTURE_BYTES + 1), ()
    if folder and Path(path).is_relative_to(folder.absolute()):
        path = str(Path(path).relative_to(folder.absolute()))
    return None, (path,)


def from_datasets(name: str, split: str, image: str, question: str, answer: str) -> Iterator[Record]:
    """One split of a data set on the hub, or of a local folder: of save_to_disk, of parquet, of pictures."""
    folder = Path(name) if Path(name).is_dir() else None
    hint = "Check its name, its split and the network, and run the same command again."
    try:
        rows = open_dataset(name, split, image)
        for index, values in enumerate(rows):
            missing = [column for column in (image, question, answer) if column not in values]
            if missing and not index:
                raise UserError(
                    f"{name} has no column {', '.join(missing)}. It has: {', '.join(values)}. "
                    "Say which to use with --image, --question and --answer."
                )
            if missing:
                yield malformed(f"no column {', '.join(missing)}")
                continue
            content, names = picture_in_cell(values[image], folder)
            turns = ((values[question], values[answer]),)
            yield Record(names=names, content=content, turns=turns, split=split_part(split))
    except UserError:
        raise
    except Exception as problem:  # `datasets` passes on whatever its readers and the network raise
        raise UserError(f"{name} cannot be read: {problem} {hint}") from problem


def split_part(split: str) -> str:
    """The split that a part of one is of: train[:10%] -> train, train_sft -> train"""
    return re.split(r"[\W_]", split)[0]


def open_dataset(name: str, split: str, image: str) -> Any:
    try:
        datasets = importlib.import_module("datasets")
    except ModuleNotFoundError as problem:
        raise UserError("This format needs a package more: pip install datasets") from problem
    saved = any((Path(name) / file).is_file() for file in ("state.json", "dataset_dict.json"))
    rows = (
        datasets.load_from_disk(name) if saved else datasets.load_dataset(name, split=split, streaming=True)
    )
    if isinstance(rows, datasets.DatasetDict):
        if split not in rows:
            raise UserError(f"{name} has no split {split}. It has: {', '.join(rows)}.")
        rows = rows[split]
    if isinstance((rows.features or {}).get(image), datasets.Image):
        rows = rows.cast_column(image, datasets.Image(decode=False))
    return rows
