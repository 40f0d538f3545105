"""The pictures that nothing in training may look like, and what is compared to find it, mirrored or not.

In: pictures with their splits, or parquet files that are there. Out: the likenesses of those that are kept apart, test
pictures and validation photographs, against which prepare and convert hold every picture that would be trained on.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageChops
from tqdm import tqdm

from training.data import batches, picture_bytes
from training.digest import digest
from training.picture import Picture, flatten_on_white, open_raster
from vlm.errors import UserError

NEAR_BITS = 6  # of 64: at most this many differ between near-duplicates
NEAR_COLOUR = 20.0  # of 255: mean difference of their colours
MADE = ("synthetic", "composited")  # kinds that look alike by their making


class Likeness(NamedTuple):
    """What two pictures are compared by, cropped to their content and squeezed to a square."""

    bits: int  # 64: whether each of 8 x 8 cells is brighter than its right neighbour
    colours: np.ndarray  # [8, 8, 3] mean colours


def likeness(image: Image.Image) -> Likeness:
    """RGB on white -> what near-duplicates share."""
    box = ImageChops.invert(image).convert("L").point(lambda value: 255 * (value > 8)).getbbox()
    cropped = image.crop(box) if box else image
    grey = np.asarray(cropped.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)  # [8, 9]
    bits = (grey[:, :-1] > grey[:, 1:] + 2).ravel()  # 2 of 255: a flat background must not flip bits
    colours = np.asarray(cropped.resize((8, 8), Image.Resampling.BOX), dtype=np.float32)
    return Likeness(int(np.packbits(bits).tobytes().hex(), 16), colours)


class KeptOut:
    """The pictures that nothing in training may look like: path -> likeness, compared with all at once."""

    def __init__(self, likenesses: Mapping[str, Likeness]):
        self.paths = list(likenesses)
        self.known = set(self.paths)
        self.bits = np.array([like.bits for like in likenesses.values()], dtype=np.uint64)  # [M]
        colours = [like.colours for like in likenesses.values()]
        self.colours = np.stack(colours) if colours else np.zeros((0, 8, 8, 3), np.float32)  # [M, 8, 8, 3]

    def find_twin(self, image: Image.Image) -> str:
        """RGB -> path of the kept-out picture it nearly is, maybe mirrored; empty where there is none."""
        mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        found = [self._places(likeness(side)) for side in (image, mirrored)]
        places = [place for side in found for place in side]
        return self.paths[min(places)] if places else ""

    def _places(self, like: Likeness) -> list[int]:
        """Few bits and little colour apart: the bits alone call an orange and a coin the same."""
        apart = np.bitwise_count(self.bits ^ np.uint64(like.bits))  # [M]
        return [
            int(place)
            for place in np.flatnonzero(apart <= NEAR_BITS)
            if colours_apart(like.colours, self.colours[place]) <= NEAR_COLOUR
        ]


def colours_apart(left: np.ndarray, right: np.ndarray) -> float:
    """[8, 8, 3] twice -> their mean difference of 255, white background left out."""
    drawn = (left.min(axis=2) < 235) | (right.min(axis=2) < 235)  # [8, 8]
    return float(np.abs(left - right)[drawn].mean())


def kept_out_of(kept_out: KeptOut) -> str:
    """A digest of which pictures are kept out."""
    return digest(sorted(kept_out.known))


def keep_out(pictures: list[Picture], splits: dict[str, str]) -> dict[str, Likeness]:
    """The pictures that training must show nothing like."""
    likenesses = {}
    for picture in tqdm(pictures, desc="held-out pictures"):
        if is_kept_apart(picture.kind, splits[picture.path]):
            try:
                likenesses[picture.path] = likeness(flatten_on_white(picture.load()))
            except UserError:
                continue  # a broken photograph is told of where it would be written
    return likenesses


def is_kept_apart(kind: str, split: str) -> bool:
    """Whether what looks like it must not be trained on. Synthetic pictures look alike by their making."""
    return kind != "synthetic" and (split == "test" or (split == "validation" and kind == "photo"))


def held_out_likenesses(files: Iterable[Path]) -> dict[str, Likeness]:
    """The pictures of these parquet files that training must show nothing like, as `keep_out` finds them. Raises UserError
    where a file is broken."""
    likenesses: dict[str, Likeness] = {}
    seen: set[tuple[str, str]] = set()
    for file in files:
        for image in _held_out_images(file):
            content = picture_bytes(image, file.name)
            path = image.get("path") or "" if isinstance(image, dict) else ""
            sha256 = hashlib.sha256(content).hexdigest()
            if (path, sha256) in seen:
                continue
            seen.add((path, sha256))
            # not all have a path, and of two data sets both may have a 1.jpg
            name = path if path and path not in likenesses else f"{path or file.name} {sha256[:12]}"
            likenesses[name] = likeness(flatten_on_white(open_raster(content)))
    return likenesses


def _held_out_images(file: Path) -> Iterator[Any]:
    """The cells `image` of the rows that are kept apart."""
    columns = ["image", "kind", "split"]
    for batch in batches(file, columns, needed=()):
        if not {*columns} <= {*batch.schema.names}:
            return  # of somebody's own making
        for row in batch.to_pylist():
            if is_kept_apart(row["kind"], row["split"]):
                yield row["image"]
