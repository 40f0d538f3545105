"""Fetches every source, makes rows of its pictures and writes one parquet file for each source.

    python -m training.prepare --output data/embedded --photos photos
    python -m training.prepare --output data/mine --photos photos --only-photos
    python -m training.prepare --output data/embedded --feedback FOLDER

In: Debian, npm and PyPI packages (sources/packages.py), and the folders in `--photos` that hold an `index.jsonl`
(sources/photographs.py). Out, in `--output`: one `<source>.parquet` each with the columns of parquet_file.SCHEMA,
`card.json` and `card.md`. All rows of one picture are adjacent. A file is written under a temporary name and renamed
when whole, and an existing one is kept, so a second run only finishes what is missing; delete a file to make it again.
One that was made of other pictures or texts than are there now is told and ends the run.

With `--only-photos` only the photographs' files are made, and no package is fetched. With `--feedback` only
`feedback.parquet` is made, and always anew, of what the page's thumbs have kept (sources/feedback.py): an evening's
corrections take seconds, and no package is fetched.
"""

import argparse
import json
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from tqdm import tqdm

from training.data.held_out import KeptOut, held_out_likenesses, keep_out, kept_out_of
from training.data.parquet_file import origin_of, own_origin, write_source
from training.data.splits import assign_splits
from training.picture import Picture
from training.runs.resources import disk_limit
from training.sources import (
    art4apps,
    composited,
    easyvqa,
    emoji,
    feedback,
    gcompris,
    openclipart,
    photographs,
    sweethome,
    tuxpaint,
)
from training.sources.card import make_card, read_dropped, to_markdown
from training.sources.packages import fetch
from training.wording.instructions import Phrases
from vlm.errors import UserError
from vlm.locks import alone_in
from vlm.terminal import command
from vlm.whole_files import write_json, write_whole

COMPOSITED = "composited"  # made of the cut-outs of the other sources


def read_emoji(style: str, labels: Path, pictures: Path) -> list[Picture]:
    return emoji.read(labels, style, pictures)


# name -> packages, and what reads their folders. The order is that of the pictures, which splits are assigned in
SOURCES: dict[str, tuple[tuple[str, ...], Callable[..., list[Picture]]]] = {
    "easy-vqa": (("easy-vqa",), easyvqa.read),
    "tuxpaint": (("tuxpaint-stamps-default",), tuxpaint.read),
    **{
        f"emoji-{style}": (("emojibase-data", package), partial(read_emoji, style))
        for style, package in {
            "fluent-3d": "@lobehub/fluent-emoji-3d",
            "noto": "@iconify-json/noto",
            "openmoji": "@iconify-json/openmoji",
            "twemoji": "@twemoji/svg",
        }.items()
    },
    "art4apps": (("pysiogame",), art4apps.read),
    "sweethome3d": (("sweethome3d-furniture",), sweethome.read),
    "openclipart": (("openclipart-png", "openclipart-svg"), openclipart.read),
    "gcompris": (("gcompris-qt-data",), gcompris.read),
    "emoji-noto-v1": (("emojibase-data", "@iconify-json/noto-v1"), partial(read_emoji, "noto-v1")),
    "emoji-emojione-v1": (
        ("emojibase-data", "@iconify-json/emojione-v1"),
        partial(read_emoji, "emojione-v1"),
    ),
}


def prepare(out: Path, downloads: Path, photos: Path | None = None) -> dict:
    """Makes whatever is missing in `out` -> the data card."""
    found = read_photos(photos, out) if photos else {}
    listed = {
        name: read(*(fetch(package, downloads) for package in packages))
        for name, (packages, read) in tqdm(SOURCES.items(), desc="packages")
    }
    write_data(listed, out, found)
    names = {name: packages for name, (packages, _) in SOURCES.items()} | dict.fromkeys(
        [COMPOSITED, *found], ()
    )
    return write_card(out, names | names_in_card(out))  # others, that were made before, stay in it


def prepare_photos(out: Path, photos: Path) -> dict:
    """Makes what is missing in `out` of one's own photographs alone -> the data card."""
    found = read_photos(photos, out)
    write_data({}, out, found)
    return write_card(out, names_in_card(out) | dict.fromkeys(found, ()))


def read_photos(photos: Path, out: Path) -> dict[str, list[Picture]]:
    return photographs.read_folders(photos, taken=(*SOURCES, COMPOSITED, feedback.NAME), out=out)


def write_card(out: Path, names: dict[str, tuple[str, ...]]) -> dict:
    card = make_card(out, names)
    write_json(card, out / "card.json")
    write_whole(out / "card.md", to_markdown(card))
    return card


def write_data(
    listed: dict[str, list[Picture]], out: Path, photos: dict[str, list[Picture]] | None = None
) -> None:
    """Every source's pictures, scenes composited of them, and photographs -> one parquet file each. Nothing that is held
    out in files of other calls is like what trains."""
    out.mkdir(parents=True, exist_ok=True)
    photos = photos or {}
    pictures = [picture for found in listed.values() for picture in found]
    brought = [picture for found in photos.values() for picture in found]
    splits = assign_splits(pictures)
    phrases = {
        split: Phrases(picture for picture in pictures if splits[picture.path] == split)
        for split in ("train", "test-concept")
    }
    splits |= {picture.path: picture.split for picture in brought}
    others = other_files(out, {*listed, *photos, COMPOSITED, feedback.NAME})
    kept_out = KeptOut(held_out_likenesses(others) | keep_out([*pictures, *brought], splits))

    check_origins({name: own_origin(found, splits) for name, found in {**listed, **photos}.items()}, out)

    for name, found in listed.items():
        write_missing(out / f"{name}.parquet", found, splits, phrases, kept_out)
    if listed:
        dropped = {path for name in listed for path in read_dropped(out, name)}
        scenes = composited.compose([p for p in pictures if p.path not in dropped], splits)
        splits |= {scene.path: scene.split for scene in scenes}
        check_origins({COMPOSITED: own_origin(scenes, splits)}, out)
        write_missing(out / f"{COMPOSITED}.parquet", scenes, splits, phrases, kept_out)
    for name, found in photos.items():
        write_missing(out / f"{name}.parquet", found, splits, phrases, kept_out)


def other_files(out: Path, names: Collection[str]) -> list[Path]:
    """The parquet files in `out` of other sources than these."""
    return [file for file in sorted(out.glob("*.parquet")) if file.stem not in names]


def write_missing(
    file: Path,
    found: list[Picture],
    splits: dict[str, str],
    phrases: dict[str, Phrases],
    kept_out: KeptOut,
) -> None:
    """Make the file of a source where it is not there yet."""
    if not file.exists():
        write_source(file, found, splits, phrases, kept_out)
    elif origin_of(file)["kept_out"] not in ("", kept_out_of(kept_out)):
        print(
            f"{file} was made while other pictures were held out. Delete it, and what looks like those of today "
            "is left out."
        )


def prepare_feedback(out: Path, folder: Path) -> str:
    """The votes in `folder` -> `feedback.parquet` in `out`, and in the data card. -> what became of them, for people"""
    pictures, told = feedback.read(folder)
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{feedback.NAME}.parquet"
    others = other_files(out, {feedback.NAME})
    splits = {picture.path: picture.split for picture in pictures}
    write_source(file, pictures, splits, {"train": Phrases([])}, KeptOut(held_out_likenesses(others)))
    write_card(out, {feedback.NAME: ()} | names_in_card(out))
    left_out = read_dropped(out, feedback.NAME)
    if left_out:
        told += (
            f" Of the pictures {len(left_out)} were left out: {'; '.join(sorted(set(left_out.values())))}."
        )
    return told


def check_origins(wanted: dict[str, dict[str, str]], out: Path) -> None:
    """Raise UserError where a file is there that was made of something else; `wanted`: source -> `own_origin`."""
    stale = []
    for name, origin in wanted.items():
        file = out / f"{name}.parquet"
        there = origin_of(file) if file.exists() else {}
        if any(there.get(key) and today and there[key] != today for key, today in origin.items()):
            stale.append(str(file))
    if stale:
        raise UserError(
            f"{', '.join(stale)}: made of other pictures or texts than are there now, or by an earlier version. "
            "Delete what is to be made again, or give another --output."
        )


def names_in_card(out: Path) -> dict[str, tuple[str, ...]]:
    """Source -> packages, of those that the card in `out` has and whose files are there."""
    card = out / "card.json"
    if not card.is_file():
        return {}
    listed = json.loads(card.read_text(encoding="utf-8"))["licences"]
    packages = {name: found for name, (found, _) in SOURCES.items()}
    return {name: packages.get(name, ()) for name in listed if (out / f"{name}.parquet").is_file()}


@command("prepare")
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output", type=Path, default=Path("data/embedded"), help="folder of the parquet files"
    )
    parser.add_argument("--downloads", type=Path, help="folder of the packages; default: OUTPUT/downloads")
    parser.add_argument(
        "--photos", type=Path, help="folder whose subfolders hold photographs and an index.jsonl"
    )
    parser.add_argument("--only-photos", action="store_true", help="of --photos alone: nothing is fetched")
    parser.add_argument(
        "--feedback", type=Path, help="folder of what the page's thumbs have kept: only its rows are made"
    )
    arguments = parser.parse_args()
    if arguments.feedback and (arguments.photos or arguments.downloads or arguments.only_photos):
        parser.error("--feedback makes the rows of the feedback alone: give the other folders without it")
    if arguments.only_photos and (not arguments.photos or arguments.downloads):
        parser.error("--only-photos needs --photos, and no --downloads")
    out, downloads = arguments.output, arguments.downloads or arguments.output / "downloads"
    if not arguments.photos and not arguments.feedback:
        print("Folders of photographs are left out; name the folder that holds them with --photos.")
    again = "give the same command again; what is whole is kept"
    with alone_in(out), disk_limit(out, downloads, resume=again):
        if arguments.feedback:
            told = prepare_feedback(out, arguments.feedback)
        elif arguments.only_photos:
            told = to_markdown(prepare_photos(out, arguments.photos))
        else:
            told = to_markdown(prepare(out, downloads, arguments.photos))
    print(told)


if __name__ == "__main__":
    main()
