"""Files -> the pictures of an index, a batch at a time: however many there are, only one batch of them is open.

What was embedded before is known by its content, and is not embedded again when its file is renamed or touched.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from vlm.chat.index import Broken, Entry, PictureIndex, Report
from vlm.errors import UserError
from vlm.inputs.images import MAX_PICTURE_BYTES, SUFFIXES, PictureFile, open_image

BATCH = 4  # pictures open at once, of up to 8 MB each

Embed = Callable[[Sequence[Image.Image]], Tensor]  # B pictures -> [B, D]


class Seen(NamedTuple):
    """A file that is in the index now, itself or by a copy of it."""

    file: PictureFile
    sha256: str


def picture_files(folder: Path) -> list[PictureFile]:
    """The pictures of a folder and the folders in it, in order; hidden ones, and folders behind links, are left out."""
    if not os.path.isdir(folder):  # False, and no error, where the name is too long
        raise UserError(f'There is no folder "{folder}". Check its name.')
    found = []
    for place, folders, names in os.walk(folder.resolve()):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(place) / name for name in sorted(names) if not name.startswith("."))
        found += [PictureFile(path, str(path)) for path in paths if path.suffix.lower() in SUFFIXES]
    if not found:
        raise UserError(f'There are no pictures in the folder "{folder}". Choose another one.')
    return found


def update(
    known: PictureIndex, files: Sequence[PictureFile], embed: Embed
) -> tuple[PictureIndex, Iterator[list[Seen]]]:
    """`known` brought up to date with `files`, which are all that is to be in it: a new index, and the steps that fill it.

    A file of the same size and time as before is taken to be unchanged, and is not read."""
    before = {entry.path: entry for entry in known.entries}
    here = {file.name for file in files}
    unchanged = [
        before[file.name] for file in files if file.name in before and _is_as_it_was(file, before[file.name])
    ]
    index = known.only(unchanged)
    same = {entry.path for entry in unchanged}
    index.report = Report(unchanged=len(unchanged), removed=len(before.keys() - here))
    rest = [file for file in files if file.name not in same]
    return index, add_pictures(index, rest, embed, known)


def add_pictures(
    index: PictureIndex, files: Sequence[PictureFile], embed: Embed, known: PictureIndex | None = None
) -> Iterator[list[Seen]]:
    """Put the files into the index, a batch a step; `index.report` tells what became of them.

    Closed early, what was embedded until then stays. Vectors of contents in `known` are taken from there."""
    known = known or PictureIndex(index.aligner, index.dim)
    index.report.total = len(files)
    before = {entry.path: entry.sha256 for entry in known.entries}
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        seen = _add_batch(index, batch, embed, known, before)
        index.report.done += len(batch)
        yield seen


def _add_batch(
    index: PictureIndex,
    files: Sequence[PictureFile],
    embed: Embed,
    known: PictureIndex,
    before: Mapping[str, str],
) -> list[Seen]:
    report, seen = index.report, []
    new: dict[str, Entry] = {}
    pictures: dict[str, Image.Image] = {}
    for file in files:
        try:
            entry = read_entry(file)
            if index.has(entry.sha256) or entry.sha256 in new:
                report.copies.append(file.title)
            else:
                if not known.has(entry.sha256):
                    pictures[entry.sha256] = open_image(file.path, file.title)
                new[entry.sha256] = entry
                report.added += file.name not in before
                report.changed += before.get(file.name, entry.sha256) != entry.sha256
                report.unchanged += before.get(file.name) == entry.sha256  # touched
            seen.append(Seen(file, entry.sha256))
        except UserError as problem:
            report.broken.append(Broken(file.title, str(problem)))
    embedded = dict(zip(pictures, embed(list(pictures.values())), strict=True)) if pictures else {}
    if new:
        vectors = [embedded[each] if each in embedded else known.vector(each) for each in new]
        index.add(list(new.values()), torch.stack(vectors))
    return seen


def read_entry(file: PictureFile) -> Entry:
    """UserError where the file is missing or too large to be a picture."""
    try:
        status = file.path.stat()
        if status.st_size > MAX_PICTURE_BYTES or not file.path.is_file():
            open_image(file.path, file.title)  # says what is wrong with it
        with file.path.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as problem:
        raise UserError(f'The picture "{file.title}" cannot be opened.') from problem
    return Entry(file.name, sha256, status.st_size, status.st_mtime_ns)


def _is_as_it_was(file: PictureFile, entry: Entry) -> bool:
    try:
        status = file.path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (entry.size, entry.modified)
