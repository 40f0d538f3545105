"""Data that people bring -> parquet files that training/finetune.py reads.

    python -m training.convert llava    --file llava_instruct_150k.json --images coco/train2017 --output data/llava
    python -m training.convert csv      --file mine.csv --images photos --output data/mine
    python -m training.convert flickr8k --file captions.txt --images Images --output data/flickr8k
    python -m training.convert coco-captions  --file captions_train2017.json --images train2017 --output data/coco-captions
    python -m training.convert coco-instances --file instances_train2017.json --images train2017 --output data/coco-boxes
    python -m training.convert pixmo    --file part-0.parquet --images folder --output data/pixmo
    python -m training.convert datasets --name owner/name --split train --question question --answer answer --output data/x

In: files of one format (training/formats) and a folder of pictures. Out, in `--output`: `<source>-00000.parquet`
and so on, `skipped.jsonl` with every problem, and `progress.json`. A bad record is counted, listed
and skipped, never the end; the same command again goes on behind the last whole shard, and the result is the
same, byte for byte, as without a break. Memory does not grow with the data. Pictures are split by their bytes; with
`--keep-out FOLDER` those that look like a held-out picture of that data folder are not trained on.
"""

import argparse
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from training.data import parquet_files
from training.data.held_out import MADE, KeptOut, held_out_likenesses
from training.digest import digest
from training.formats.coco import from_coco_captions, from_coco_instances
from training.formats.rows import LONG, SPLITS, Labels, PictureReader, plain_split, rows_of
from training.formats.shards import Progress, load_progress, shard_in
from training.formats.tables import from_datasets, from_pixmo, split_part
from training.formats.texts import SYSTEM, Record, from_csv, from_flickr8k, from_llava
from training.runs.resources import disk_limit
from vlm.errors import UserError
from vlm.locks import alone_in
from vlm.terminal import command
from vlm.weights.resolve import sha256_of

FILE_FORMATS: dict[str, Callable[[Path], Iterator[Record]]] = {
    "llava": from_llava,
    "csv": from_csv,
    "flickr8k": from_flickr8k,
    "coco-captions": from_coco_captions,
    "coco-instances": from_coco_instances,
    "pixmo": from_pixmo,
}
KEPT = {"more than one picture", SYSTEM, LONG}  # told, but not skipped
LISTED = 20  # of each reason, in the report


def convert(arguments: argparse.Namespace) -> Progress:
    """Convert whatever is not converted yet."""
    check(arguments)
    out: Path = arguments.output
    out.mkdir(parents=True, exist_ok=True)
    kept_out = KeptOut(held_out_likenesses(parquet_files(arguments.keep_out))) if arguments.keep_out else None
    progress = load_progress(out, identity(arguments, kept_out))
    if progress.finished:
        print(f"{out} was finished before; nothing was done. Delete the folder to convert again.")
        return progress
    progress.save(out)
    reader = PictureReader(picture_folder(arguments), kept_out)
    done = progress.records
    left = tqdm(
        islice(records_of(arguments), done, None), initial=done, unit=" records", desc=arguments.source
    )
    numbered = enumerate(left, done + 1)
    with (out / "skipped.jsonl").open("ab") as skipped:
        # The rest was of a shard that was not finished
        skipped.seek(skipped.truncate(progress.skipped_bytes))
        while not progress.finished:
            write_shard(numbered, reader, skipped, arguments, progress)
            if not progress.rows:
                raise UserError(
                    f"Nothing could be read: check the folder of the pictures and the format.\n{problems_text(out)}"
                )
            progress.save(out)
    return progress


def write_shard(
    numbered: Iterator[tuple[int, Record]],
    reader: PictureReader,
    skipped: BinaryIO,
    arguments: argparse.Namespace,
    progress: Progress,
) -> None:
    """Records -> the next shard, until it is full or they end. Moves `progress` on."""
    labels = Labels(arguments.source, arguments.kind, arguments.validation_share)
    with shard_in(arguments.output / f"{arguments.source}-{progress.shards:05d}.parquet") as shard:
        for number, record in numbered:
            rows, problems = rows_of(record, number, reader, labels)
            shard.add(rows)
            for problem in problems:
                line = {"record": number, "reason": problem.reason, "detail": problem.detail[:300]}
                skipped.write(json.dumps(line).encode() + b"\n")
            progress.records = number
            if shard.image_bytes >= arguments.shard_megabytes * 2**20:
                break
        else:
            progress.finished = True
    skipped.flush()
    progress.skipped_bytes = skipped.tell()
    progress.rows += shard.rows
    progress.shards += bool(shard.rows)


def records_of(arguments: argparse.Namespace) -> Iterator[Record]:
    if arguments.format == "datasets":
        return from_datasets(
            arguments.name, arguments.split, arguments.image, arguments.question, arguments.answer
        )
    return chain.from_iterable(FILE_FORMATS[arguments.format](file) for file in arguments.file)


def picture_folder(arguments: argparse.Namespace) -> Path | None:
    """--images; a local data set may name pictures beside itself."""
    if arguments.images or arguments.format != "datasets" or not Path(arguments.name).is_dir():
        return arguments.images
    return Path(arguments.name)


def identity(arguments: argparse.Namespace, kept_out: KeptOut | None) -> dict[str, Any]:
    """What decides the result, files by their content."""
    told_apart = ("output", "file", "images", "keep_out")
    kept = {key: value for key, value in vars(arguments).items() if key not in told_apart}
    kept |= {"keep_out": digest([kept_out.paths, kept_out.bits.tolist()])} if kept_out else {}
    # They once were captions, and pictures without tasks.
    kept |= {"records": "pictures"} if arguments.format in ("coco-captions", "coco-instances") else {}
    files = [[file.name, sha256_of(file)] for file in arguments.file]
    return kept | {"file": files, "images": str(arguments.images.resolve()) if arguments.images else None}


def check(arguments: argparse.Namespace) -> None:
    """Raise UserError where an argument cannot be right."""
    if arguments.format == "datasets" and not arguments.name:
        raise UserError("The format datasets needs --name: a name on the hub, or a local folder.")
    split = plain_split(split_part(arguments.split))
    if arguments.format == "datasets" and split and split not in SPLITS:
        raise UserError(f"--split {arguments.split} is none of {', '.join(SPLITS)}, nor a part of one.")
    if arguments.format != "datasets" and not arguments.file:
        raise UserError(f"The format {arguments.format} needs --file.")
    if arguments.format not in ("datasets", "pixmo") and not arguments.images:
        raise UserError(f"The format {arguments.format} needs --images, the folder of the pictures.")
    for file in arguments.file:
        if not os.path.isfile(file):  # False, and no error, where the name is too long
            raise UserError(f"There is no file {file}. Check --file.")
    if arguments.images and not os.path.isdir(arguments.images):
        raise UserError(f"There is no folder {arguments.images}. Check --images.")
    check_keep_out(arguments)
    if not re.fullmatch(r"\w[\w.-]*", arguments.source):
        raise UserError(f"{arguments.source!r} names files: use letters, digits, - and _ for --source.")
    if not 0 <= arguments.validation_share <= 1 or not arguments.shard_megabytes > 0:
        raise UserError("--validation-share must be between 0 and 1, --shard-megabytes above 0.")


def check_keep_out(arguments: argparse.Namespace) -> None:
    folder = arguments.keep_out
    if folder and not os.path.isdir(folder):
        raise UserError(f"There is no folder {folder}. Check --keep-out.")
    if folder and folder.resolve() == arguments.output.resolve():
        raise UserError(
            "--keep-out is the folder of other data, and --output gets those of this command alone."
        )
    if folder and arguments.kind in MADE:
        raise UserError(
            f"Pictures that are {arguments.kind} look alike by their making: leave --keep-out out."
        )


def problems_text(out: Path) -> str:
    """What skipped.jsonl says: how often each reason, and its first records."""
    counts: Counter[str] = Counter()
    first: dict[str, list[str]] = defaultdict(list)
    with (out / "skipped.jsonl").open(encoding="utf-8") as lines:
        for problem in map(json.loads, lines):
            reason = problem["reason"]
            counts[reason] += 1
            if counts[reason] <= LISTED:
                first[reason].append(f"    record {problem['record']}: {problem['detail']}")
    text = []
    for reason, count in counts.most_common():
        text += [f"{reason}: {count} {'(kept)' if reason in KEPT else 'skipped'}", *first[reason]]
        text += [f"    ... all of them are in {out / 'skipped.jsonl'}"] if count > LISTED else []
    return "\n".join(text) or "no problems"


def parse(words: list[str] | None = None) -> argparse.Namespace:
    formats = [*FILE_FORMATS, "datasets"]
    parser = argparse.ArgumentParser(
        prog="python -m training.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("format", choices=formats)
    parser.add_argument("--file", type=Path, nargs="+", default=[], help="one or more files of the format")
    parser.add_argument("--images", type=Path, help="folder of the pictures")
    parser.add_argument("--output", type=Path, required=True, help="folder of the parquet files")
    parser.add_argument("--source", help="what the training preset calls the data; default: the format")
    parser.add_argument("--kind", default="photo", help="photo, drawing, ...")
    parser.add_argument(
        "--validation-share", type=float, default=0.02, help="of the pictures, where the file names no split"
    )
    parser.add_argument(
        "--keep-out",
        type=Path,
        help="a data folder; training pictures that look like its held-out ones are left out",
    )
    parser.add_argument("--shard-megabytes", type=float, default=256, help="of pictures in one parquet file")
    parser.add_argument("--name", help="datasets: a name on the hub, or a local folder")
    parser.add_argument("--split", default="train", help="datasets: the split to read")
    for column in ("image", "question", "answer"):
        parser.add_argument(f"--{column}", default=column, help=f"datasets: the column of the {column}")
    arguments = parser.parse_args(words)
    arguments.source = arguments.source or arguments.format
    return arguments


@command("convert")
def main() -> None:
    arguments = parse()
    try:
        again = "give the same command again; it goes on behind the last whole file"
        with alone_in(arguments.output), disk_limit(arguments.output, resume=again):
            progress = convert(arguments)
    except KeyboardInterrupt:
        raise SystemExit("Stopped. The same command goes on behind the last whole file.") from None
    print(problems_text(arguments.output))
    print(f"{arguments.output}: {progress.rows} rows in {progress.shards} files, source {arguments.source}.")


if __name__ == "__main__":
    main()
