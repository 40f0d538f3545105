"""Folders of photographs with an `index.jsonl` (index_lines.py) -> pictures with all their questions.

In: a folder whose subfolders are one source each, named after the subfolder. Out: pictures whose rows are made of
what the index knows: captions, labels, boxes, classes and questions (one module each), yes and no in equal numbers
(presence.py), and conversations (follow_ups.py). A tenth of each set, and of each label in it, is `validation`, by
a salted hash of the set and the file's name; where most labels have too few pictures, a tenth of the set. JPEGs of at
most 320 pixels are stored as they are.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

from PIL import Image

from training.data.splits import hash_fraction
from training.picture import Picture, Row
from training.sources import boxes, captions, follow_ups, labels, questions_asked, regions
from training.sources.index_lines import Known, read_line
from vlm.errors import UserError
from vlm.inputs.images import as_jpeg, open_image
from vlm.weights.cache import sha256_of
from vlm.whole_files import write_whole

MAX_SIDE = 320  # px
JPEG_QUALITY = 90
HELD_OUT = 0.1  # of each set, and of each label
NEVER_HELD_OUT = {"imagenet-sample"}  # the encoder was trained on these very classes
SCENE_FRAMES = {"daquar": 10}  # neighbouring frames of NYU Depth show one room: ten stay together
TOLD = 5  # faults of one folder that are printed in full
INDEX = "index.jsonl"
NEARLY = (".jsonl", ".ndjson", ".json")  # what an index may have been called


def read_folders(
    folder: Path, taken: Collection[str] = (), out: Path | None = None
) -> dict[str, list[Picture]]:
    """The folder of the sets -> {set: its pictures}. All faults of a set are written into a file in `out`."""
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}. Check --photos.")
    indexes = sorted(folder.glob(f"*/{INDEX}"))
    for name, near in without_index(folder).items():
        hint = f" Its {near} must be called {INDEX} and hold an object a line." if near else ""
        print(f"{folder / name} holds no {INDEX} and is left out.{hint}")
    if not indexes:
        own = " It holds one itself: name the folder above it." if (folder / INDEX).is_file() else ""
        raise UserError(f"No subfolder of {folder} holds an {INDEX}.{own or ' Check --photos.'}")
    for index in indexes:
        name = index.parent.name
        if name in taken or not re.fullmatch(r"\w[\w.-]*", name):
            raise UserError(
                f"{index.parent}: the name is taken by another source or is no file name. Rename it."
            )
    return {index.parent.name: read_folder(index.parent, out) for index in indexes}


def without_index(folder: Path) -> dict[str, str]:
    """The subfolders that are no set -> the file in each that is nearly called as an index; empty where there is none."""
    found = {}
    for each in sorted(folder.iterdir()):
        if each.is_dir() and not each.name.startswith(".") and not (each / INDEX).is_file():
            files = sorted(file.name for file in each.iterdir() if file.suffix.lower() in NEARLY)
            found[each.name] = min(files, key=lambda name: not name.lower().startswith("index"), default="")
    return found


def read_folder(folder: Path, out: Path | None = None) -> list[Picture]:
    index = folder / INDEX
    known, problems = read_index(index)
    splits = split_pictures(folder.name, known)
    rows: dict[str, list[Row]] = {}
    for split in ("train", "validation"):
        rows |= ask(folder.name, [each for each in known if splits[each.image] == split], split)
    used = [each for each in known if rows[each.image]]
    unused = captions.left_out(folder.name, known)
    unused += [
        f"{each.image}: no question can be made of what is known; the picture is left out"
        for each in known
        if not rows[each.image]
    ]
    problems += [f"{index}: {clause}." for clause in unused]
    for problem in problems[:TOLD]:
        print(problem)
    where = write_problems(folder.name, problems, out) if out else ""
    if problems:
        print(f"{folder.name}: {len(used)} pictures are used, {len(problems)} faults were found.{where}")
    if not used:
        raise UserError(f"{index} holds no line that can be used.{where}")
    return [make_picture(folder, each, splits[each.image], rows[each.image]) for each in used]


def write_problems(name: str, problems: Sequence[str], out: Path) -> str:
    """All of them into a file; a sentence that says where. Without any, a file from before is removed."""
    file = out / f"{name}-skipped.txt"
    if not problems:
        file.unlink(missing_ok=True)
        return ""
    out.mkdir(parents=True, exist_ok=True)
    write_whole(file, "".join(f"{problem}\n" for problem in problems))
    return f" All of them are in {file}."


def read_index(index: Path) -> tuple[list[Known], list[str]]:
    """-> what is known of each picture, and a sentence for each fault, with its line."""
    known: dict[str, Known] = {}
    problems = []
    with index.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            each, faults = read_line(line, index.parent)
            if each and each.image in known:
                faults = [f"{each.image} was there before; the line is skipped"]
            elif each:
                known[each.image] = each
            problems += [f"{index}, line {number}: {fault}." for fault in faults]
    return list(known.values()), problems


def split_pictures(source: str, known: Sequence[Known]) -> dict[str, str]:
    """{image: split}: those whose hashes are lowest are held out, a tenth of each label. Where so many labels have too few
    pictures that this is less than half of a tenth of the set, the set's others fill up the tenth, at least one picture
    of two."""
    splits = {each.image: "train" for each in known}
    if source in NEVER_HELD_OUT:
        return splits
    strata: dict[object, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    whole: dict[str, list[str]] = defaultdict(list)
    for each in known:
        kinds = each.label or (frozenset(box.name for box in each.boxes) if not each.captions else "captions")
        stratum = kinds if source != "coco-train2017" else bool(each.captions)
        scene = scene_of(source, each.image)
        strata[stratum][scene].append(each.image)
        whole[scene if source in SCENE_FRAMES else each.image].append(each.image)
    held_out = [image for scenes in strata.values() for image in lowest_tenth(source, scenes)]
    if len(held_out) < HELD_OUT * len(known) / 2 and len(whole) > 1:
        held_out = lowest_tenth(source, whole, held_out, at_least=1)
    return splits | dict.fromkeys(held_out, "validation")


def lowest_tenth(
    source: str, scenes: Mapping[str, Sequence[str]], before: Sequence[str] = (), at_least: int = 0
) -> list[str]:
    """{scene: its images} -> the images of the scenes whose hashes are lowest, a tenth of all or a scene's rest more; those
    that were held out `before` are among them."""
    wanted = max(at_least, round(HELD_OUT * sum(map(len, scenes.values()))))
    found, taken = list(before), set(before)
    for scene in sorted(scenes, key=partial(hash_fraction, "photographs", source)):
        if len(found) >= wanted:
            break
        found += [image for image in scenes[scene] if image not in taken]
    return found


def scene_of(source: str, image: str) -> str:
    """What is held out together: the picture, or the frames of one room."""
    number = re.search(r"(\d+)\.\w+$", image)
    if source in SCENE_FRAMES and number:
        return str(int(number[1]) // SCENE_FRAMES[source])
    return Path(image).name


def ask(source: str, known: Sequence[Known], split: str) -> dict[str, list[Row]]:
    """What is known of the pictures of one split -> all their rows."""
    rows: dict[str, list[Row]] = {each.image: [] for each in known}
    for maker in (captions, labels, boxes, regions, questions_asked):
        for image, found in maker.ask(source, known, split).items():
            rows[image] += found
    follow_ups.add(source, known, rows)
    return rows


def make_picture(folder: Path, known: Known, split: str, rows: Sequence[Row]) -> Picture:
    file = folder / known.image
    picture = Picture(
        path=f"{folder.name}/{known.image}",
        source=folder.name,
        style=folder.name,
        kind="photo",
        load=partial(load, file),
        turns=tuple(rows),
        split=split,
        stored=partial(stored, file),
        content=sha256_of(file),
    )
    if not known.label:
        return picture
    name = labels.name_of(folder.name, known)
    return replace(picture, phrase=name.phrase, group=name.group)


def load(file: Path | bytes) -> Image.Image:
    image = open_image(file)
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return image


def stored(file: Path, loaded: Image.Image) -> bytes:
    """The file itself where it is an upright RGB JPEG that is small enough, else a JPEG of what was loaded of it."""
    data = file.read_bytes()
    with Image.open(BytesIO(data)) as image:
        upright = image.getexif().get(0x0112, 1) == 1
        if image.format == "JPEG" and image.mode == "RGB" and upright and max(image.size) <= MAX_SIDE:
            return data
    return as_jpeg(loaded, JPEG_QUALITY)
