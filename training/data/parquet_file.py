"""Pictures of one source -> its parquet file, whole or not at all; nothing in it gives a held-out picture away.

Held-out pictures come first, so that an identical one is known by the time training's turn comes. Memory holds one
picture at a time and one row group.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from training.data.held_out import MADE, KeptOut, kept_out_of
from training.digest import digest
from training.picture import Picture, encode, flatten_on_white
from training.wording.instructions import Phrases, make_rows
from training.wording.phrases import accepted_nouns, concept_of, head_noun
from vlm.errors import UserError
from vlm.whole_files import whole_file

SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),  # as datasets.Image stores it
        ("image_id", pa.string()),  # SHA-256 of the bytes
        ("question", pa.string()),
        ("answer", pa.string()),
        ("task", pa.string()),  # training.picture.Row.task
        ("source", pa.string()),
        ("style", pa.string()),
        ("kind", pa.string()),
        ("split", pa.string()),  # train | validation | test | test-style | test-concept
        ("concept", pa.string()),
        ("group", pa.string()),
        ("noun", pa.string()),
        ("accepted", pa.list_(pa.string())),  # nouns and short answers that count as right
        ("conversation", pa.string()),  # rows of one are asked in the order of `turn`; empty: in any order
        ("turn", pa.int32()),
        ("references", pa.list_(pa.string())),  # all captions that people gave the picture
        ("objects", pa.list_(pa.string())),  # what is known to be in the picture
    ]
)
ROWS_PER_GROUP = 1024
DICTIONARY = 32 << 20  # bytes of different pictures in a row group, up to which each is stored once


@contextmanager
def parquet_writer(file: Path, schema: pa.Schema = SCHEMA) -> Iterator[pq.ParquetWriter]:
    """Within it tables are written to `file`, which appears at the end, whole or not at all."""
    with (
        whole_file(file) as partial,
        pq.ParquetWriter(partial, schema, compression="zstd", dictionary_pagesize_limit=DICTIONARY) as writer,
    ):
        yield writer


def write_source(
    file: Path,
    pictures: list[Picture],
    splits: dict[str, str],
    phrases: dict[str, Phrases],
    kept_out: KeptOut,
) -> None:
    """Write all rows of these pictures; a killed run leaves no file behind."""
    dropped: dict[str, str] = {}
    tested_ids: set[str] = set()
    with parquet_writer(file) as writer:
        batch: list[dict] = []
        ordered = sorted(pictures, key=lambda picture: splits[picture.path] == "train")
        for picture in tqdm(ordered, desc=file.stem):
            rows = list(table_rows(picture, splits[picture.path], phrases, kept_out, tested_ids, dropped))
            if len(batch) + len(rows) > ROWS_PER_GROUP and batch:
                writer.write_table(pa.Table.from_pylist(batch, SCHEMA))
                batch = []
            batch += rows
        writer.write_table(pa.Table.from_pylist(batch, SCHEMA))
        origin = own_origin(pictures, splits) | {"kept_out": kept_out_of(kept_out)}
        writer.add_key_value_metadata({"dropped": json.dumps(dropped)} | origin)


def own_origin(pictures: list[Picture], splits: dict[str, str]) -> dict[str, str]:
    """What a source's file is made of, as digests: `made_of`, what is known of its pictures and their splits, and
    `contents`, their files; empty where those are not told."""
    known = [
        (each.path, each.source, each.style, each.kind, each.phrase, each.group, each.action, each.turns)
        for each in pictures
    ]
    files = [(each.path, each.content) for each in pictures if each.content]
    return {
        "made_of": digest([*known, *(splits[each.path] for each in pictures)]),
        "contents": digest(files) if files else "",
    }


def origin_of(file: Path) -> dict[str, str]:
    """What a file was made of: `made_of`, `contents` and `kept_out`; empty where the file does not say."""
    metadata = pq.read_metadata(file).metadata or {}
    return {name: metadata.get(name.encode(), b"").decode() for name in ("made_of", "contents", "kept_out")}


def table_rows(
    picture: Picture,
    split: str,
    phrases: dict[str, Phrases],
    kept_out: KeptOut,
    tested_ids: set[str],
    dropped: dict[str, str],
) -> Iterator[dict]:
    """One picture -> its rows; none where it gives a held-out picture away."""
    try:
        image = picture.load()
    except UserError as problem:
        dropped[picture.path] = str(problem)
        return
    flat = flatten_on_white(image)
    data = picture.stored(image) if picture.stored else encode(flat)
    image_id = hashlib.sha256(data).hexdigest()
    if split != "train":
        tested_ids.add(image_id)
    compared = picture.kind not in MADE and picture.path not in kept_out.known
    if split in ("train", "validation") and compared:
        twin = kept_out.find_twin(flat)
        if twin:
            dropped[picture.path] = f"looks like {twin}"
            return
    if split == "train" and image_id in tested_ids:
        dropped[picture.path] = "identical to a held-out picture"
        return
    known = {"image": {"bytes": data, "path": picture.path}, "image_id": image_id, "source": picture.source}
    known |= {"style": picture.style, "kind": picture.kind, "split": split, "group": picture.group}
    if picture.phrase:
        known |= {"concept": concept_of(picture.phrase), "noun": head_noun(picture.phrase)}
        known["accepted"] = accepted_nouns(picture.phrase)
    for row in make_rows(picture, image, phrases.get(split, phrases["train"]), split):
        said = row._asdict()
        yield known | {name: value for name, value in said.items() if value is not None}
