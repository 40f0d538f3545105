"""COCO's own annotation files, `captions_*.json` and `instances_*.json` -> records, one picture each.

The file is read as a stream: the captions and the names of the pictures are kept, or the boxes (not their outlines).
A picture is named by its `file_name`, else by its number, as in the releases of 2014 and 2017. Questions about boxes are
balanced within each `CHUNK` pictures.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from training.formats.texts import Record, describing_question, malformed, open_text, stream_array
from training.picture import Row
from training.sources import boxes
from training.sources.captions import clean
from training.sources.index_lines import Box, Known
from vlm.errors import UserError

CHUNK = 2000  # pictures
READ = 1 << 20  # characters
FOLDERS = ("", "COCO_train2014_", "COCO_val2014_")


def from_coco_captions(file: Path) -> Iterator[Record]:
    named = named_in(stream_member(file, "images", needed=False))
    found: dict[int, list[Any]] = defaultdict(list)  # those of a picture do not stand together in the file
    for value in stream_member(file, "annotations"):
        if not isinstance(value, dict) or not isinstance(value.get("image_id"), int):
            yield malformed(str(value)[:200])
        else:
            caption = value.get("caption")
            said = (clean(caption) or caption) if isinstance(caption, str) else caption
            found[value["image_id"]].append(said)
    for number, captions in found.items():
        turns = tuple((describing_question(str(number), str(said)), said) for said in captions)
        yield Record(names=names_of(number, named), turns=turns, caption=True)


def from_coco_instances(file: Path) -> Iterator[Record]:
    kinds = {value["id"]: value["name"] for value in stream_member(file, "categories") if is_named(value)}
    images = [value for value in stream_member(file, "images") if is_sized(value)]
    sizes = {value["id"]: (value["width"], value["height"]) for value in images}
    named = named_in(images)
    found: dict[int, list[Box] | None] = defaultdict(list)
    for value in stream_member(file, "annotations"):
        box = box_of(value, kinds, sizes)
        if box is None:
            yield malformed(f"no box: {str(value)[:200]}")
        elif value.get("iscrowd"):
            found[value["image_id"]] = None  # one box around many: nothing can be counted
        elif (known := found[value["image_id"]]) is not None:
            known.append(box)
    complete = [(number, tuple(each)) for number, each in sorted(found.items()) if each]
    for start in range(0, len(complete), CHUNK):
        pictures = [Known(str(number), boxes=each) for number, each in complete[start : start + CHUNK]]
        for image, rows in boxes.ask(f"coco {start}", pictures, "train").items():
            turns = tuple((row.question, row.answer) for row in rows)
            facts = tuple(facts_of(row) for row in rows)
            yield Record(names=names_of(int(image), named), turns=turns, facts=facts)


def facts_of(row: Row) -> dict[str, Any]:
    """What a row says beside its question and answer."""
    told = {"task": row.task, "accepted": row.accepted, "objects": row.objects}
    return {name: value for name, value in told.items() if value is not None}


def named_in(images: Iterable[Any]) -> dict[int, str]:
    """The number of a picture -> its `file_name`, where it has one."""
    return {
        value["id"]: value["file_name"]
        for value in images
        if isinstance(value, dict)
        and isinstance(value.get("id"), int)
        and isinstance(value.get("file_name"), str)
    }


def names_of(number: int, named: Mapping[int, str]) -> tuple[str, ...]:
    """The paths that it may have in the folder of the pictures, the likeliest first."""
    own = named.get(number, "")
    alone = own.replace("\\", "/").rpartition("/")[2]  # the folder may be that of --images
    numbered = (f"{folder}{number:012d}.jpg" for folder in FOLDERS)
    return tuple(name for name in dict.fromkeys((own, alone, *numbered)) if name)


def is_named(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("id"), int) and isinstance(value.get("name"), str)


def is_sized(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("id"), int):
        return False
    return all(isinstance(value.get(side), int) and value[side] > 0 for side in ("width", "height"))


def box_of(value: Any, kinds: dict[int, str], sizes: dict[int, tuple[int, int]]) -> Box | None:
    """COCO's box is in pixels."""
    try:
        (width, height), name = sizes[value["image_id"]], kinds[value["category_id"]]
        x, y, w, h = map(float, value["bbox"])
    except (KeyError, TypeError, ValueError):
        return None
    return Box(name, x / width, y / height, w / width, h / height) if w > 0 and h > 0 else None


def stream_member(file: Path, key: str, needed: bool = True) -> Iterator[Any]:
    """The values of the array `key` of the file's one object, one by one. Raises UserError where one that is needed is not
    there."""
    opening = re.compile(rf'"{key}"\s*:\s*\[')
    with open_text(file) as text:
        buffer = ""
        while not (match := opening.search(buffer)):
            more = text.read(READ)
            if not more and not needed:
                return
            if not more:
                raise UserError(f'{file} has no list "{key}": it is not a file of COCO annotations.')
            buffer = buffer[-100:] + more
        yield from stream_array(_Rest(buffer[match.end() :], text))


class _Rest:
    """What is left of a text of which some was read already."""

    def __init__(self, start: str, text: TextIO) -> None:
        self.start, self.text = start, text

    def read(self, size: int) -> str:
        start, self.start = self.start, ""
        return start or self.text.read(size)
