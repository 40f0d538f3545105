"""Parquet files -> the data card: counts, licences, what was left out, and one fingerprint over every row.

In: the folder that prepare.py wrote, read in batches without the images (their SHA-256 stands for
them). Out: a dictionary for `card.json`, and the same as Markdown. It reads only what is on
disk, so that a resumed run gets the same card as an unbroken one.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow.parquet as pq

from training.data import batches
from training.data.splits import SALT
from training.sources.packages import PACKAGES, VERSIONS

COLUMNS = ["image.path", "image_id", "question", "answer", "task", "source", "style", "kind", "split",
           "concept", "group", "noun", "accepted", "conversation", "turn", "references", "objects"]  # fmt: skip


def make_card(out: Path, packages: Mapping[str, tuple[str, ...]]) -> dict:
    """Folder, and {file name: packages it came from} -> the card."""
    digest = hashlib.sha256()
    counts: dict[str, Counter] = {}
    tasks: Counter = Counter()
    taught: set[str] = set()  # what training names
    tested: dict[str, tuple[str, list[str]]] = {}  # photograph -> its noun, and all that are right
    earlier, last = read_earlier(out), ""
    for name in sorted(packages):
        for row in read_columns(out / f"{name}.parquet"):
            digest.update(json.dumps(row, sort_keys=True).encode())
            count = counts.setdefault(f"{name} | {row['kind']} | {row['split']}", Counter())
            count["images"] += row["image_id"] != last
            count["rows"] += 1
            tasks[f"{row['split']} | {row['task']}"] += 1
            if row["split"] == "train" and row["noun"]:
                taught |= {row["noun"], row["concept"]}
            if row["split"] == "test" and row["kind"] == "photo":
                tested[row["image"]["path"]] = row["noun"], row["accepted"]
            last = row["image_id"]
    return {
        "fingerprint": digest.hexdigest(),
        "salt": SALT,
        "counts": {key: dict(counts[key]) for key in sorted(counts)},
        "tasks": dict(sorted(tasks.items())),
        "licences": {
            name: PHOTOGRAPHS.get(name) or {p: describe_package(p, earlier) for p in packages[name]}
            for name in packages
        },
        "dropped": {path: why for name in sorted(packages) for path, why in read_dropped(out, name).items()},
        "test_photographs": compare_nouns(taught, tested),
    }


def read_columns(file: Path) -> Iterator[dict]:
    for batch in batches(file, COLUMNS):
        yield from batch.to_pylist()


def read_dropped(out: Path, name: str) -> dict[str, str]:
    """{path: reason} of the pictures left out of this file, as prepare.py noted in its metadata."""
    metadata = pq.read_metadata(out / f"{name}.parquet").metadata or {}
    return json.loads(metadata.get(b"dropped", b"{}"))


PHOTOGRAPHS = {  # data set and licence of each folder of photographs (--photos); others are their owner's
    "flickr8k": {"Flickr8k": "(research use)"},
    "coco-train2017": {"COCO train2017": "(Creative Commons, each picture its own)"},
    "daquar": {"DAQUAR on NYU Depth v2": "(research use)"},
    "ade20k": {"ADE20K validation": "(research use)"},
    "imagenet-sample": {"ImageNet, one picture a class": "(research use)"},
    "caltech101": {"Caltech-101": "(CC-BY-4.0)"},
    "grocery": {"Grocery Store Dataset": "(MIT)"},
    "feedback": {"visitors' pictures": "(their owners')"},
    "fruit": {"fruit_recognition": "(MIT, as its repository says)"},
}


def describe_package(name: str, earlier: Mapping[str, str]) -> str:
    """The version is the one that was fetched, in this run or for the earlier card."""
    if name not in PACKAGES:
        return "unknown"
    known = earlier[name].partition(",")[0] if name in earlier else PACKAGES[name].version
    return f"{VERSIONS.get(name, known)}, {PACKAGES[name].licence}"


def read_earlier(out: Path) -> dict[str, str]:
    """{package: version and licence} as the card has them that is there."""
    file = out / "card.json"
    licences = json.loads(file.read_text(encoding="utf-8"))["licences"] if file.is_file() else {}
    return {package: text for of_source in licences.values() for package, text in of_source.items()}


def compare_nouns(taught: set[str], tested: Mapping[str, tuple[str, list[str]]]) -> dict:
    """Which test photographs show something that training names."""
    return {
        "count": len(tested),
        "noun_in_training": sum(noun in taught for noun, _ in tested.values()),
        "accepted_in_training": sum(bool(set(accepted) & taught) for _, accepted in tested.values()),
        "nouns": {path: noun for path, (noun, _) in sorted(tested.items())},
        "not_in_training": sorted({noun for noun, _ in tested.values()} - taught),
    }


def to_markdown(card: dict) -> str:
    photographs = card["test_photographs"]
    known = f"training names the noun of {photographs['noun_in_training']}, an accepted one of"
    lines = ["# Data card", "", f"Fingerprint `{card['fingerprint']}`, splits by salt `{card['salt']}`.", ""]
    lines += ["| source | kind | split | images | rows |", "|---|---|---|---|---|"]
    lines += [f"| {key} | {n['images']} | {n['rows']} |" for key, n in card["counts"].items()]
    lines += ["", "| source | packages, versions and licences |", "|---|---|"]
    for name, packages in card["licences"].items():
        lines.append(f"| {name} | {'; '.join(f'{p} {v}' for p, v in packages.items())} |")
    lines += ["", f"Test photographs: {photographs['count']}; {known} {photographs['accepted_in_training']}."]
    lines += ["", f"Left out, most for their likeness to held-out pictures ({len(card['dropped'])}):", ""]
    lines += [f"- {path}: {why}" for path, why in card["dropped"].items()]
    return "\n".join(lines) + "\n"
