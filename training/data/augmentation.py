"""Other views of training pictures: cropped, mirrored, with other colours, as far as the answers stay true.

The encoder is frozen and its features are computed once, so that views are drawn once as well, by a seed made of the
picture's id; a view has an id of its own, behind which its features are kept.
"""

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageEnhance, ImageOps

from vlm.errors import UserError
from vlm.inputs.images import open_image

SEPARATOR = "@"  # picture@number and what it was drawn by
FALSIFIES = {  # task -> the changes after which its answer may be wrong
    "name": set(), "describe": set(), "category": set(), "yes": set(), "no": set(), "choice": set(),
    "action": set(), "scene": set(), "colour": {"jitter"}, "count": {"crop"}, "where": {"crop", "flip"},
    "which": {"crop", "flip"},
}  # fmt: skip
SIDE = re.compile(r"\b(?:left|right)\b", re.IGNORECASE)


@dataclass(frozen=True)
class AugmentationConfig:
    views: int = 0  # of each picture, beside the picture itself
    crop: float = 0.2  # at most this share of each side is cut away; 0: never
    flip: float = 0.5  # probability of mirroring
    jitter: float = 0.3  # brightness, contrast and saturation change by at most this share; 0: never


NO_AUGMENTATION = AugmentationConfig()


class View(NamedTuple):
    box: tuple[float, float, float, float]  # of the sides
    mirrored: bool
    factors: tuple[float, float, float]  # of brightness, contrast, saturation

    @property
    def changes(self) -> set[str]:
        done = {"crop": self.box != (0, 0, 1, 1), "flip": self.mirrored, "jitter": set(self.factors) != {1.0}}
        return {name for name, happened in done.items() if happened}


def draw_view(view_id: str, config: AugmentationConfig) -> View:
    """Each change is made in half of the views, mirroring by its own probability."""
    rng = random.Random(view_id)
    cut = [config.crop * rng.random() for _ in range(2)] if rng.random() < 0.5 else [0.0, 0.0]
    left, top = (share * rng.random() for share in cut)
    factors = [1 + config.jitter * rng.uniform(-1, 1) for _ in range(3)]
    jittered = config.jitter > 0 and rng.random() < 0.5
    box = (left, top, left + 1 - cut[0], top + 1 - cut[1])
    return View(box, rng.random() < config.flip, tuple(factors) if jittered else (1.0, 1.0, 1.0))  # type: ignore


def paint_view(image: Image.Image, view: View) -> Image.Image:
    """RGB -> RGB."""
    width, height = image.size
    left, top, right, bottom = view.box
    image = image.crop((int(left * width), int(top * height), round(right * width), round(bottom * height)))
    image = ImageOps.mirror(image) if view.mirrored else image
    for enhance, factor in zip(
        (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), view.factors, strict=True
    ):
        image = enhance(image).enhance(factor) if factor != 1 else image
    return image


def view_ids(picture: str, config: AugmentationConfig) -> list[str]:
    drawn_by = f"{config.crop} {config.flip} {config.jitter}"
    return [f"{picture}{SEPARATOR}{number} {drawn_by}" for number in range(1, config.views + 1)]


def picture_id_of(view_id: str) -> str:
    return view_id.partition(SEPARATOR)[0]


def is_true_of(view: View, task: str) -> bool:
    """Whether the answer to a question of this task holds for the view as well; never where the task is not known."""
    return task in FALSIFIES and view.changes.isdisjoint(FALSIFIES[task])


def keeps_sides(view: View, *texts: str) -> bool:
    """Whether what texts say of left and right holds for the view as well."""
    return view.changes.isdisjoint({"crop", "flip"}) or not any(map(SIDE.search, texts))


def with_views(
    pictures: Iterable[tuple[str, bytes]], config: AugmentationConfig
) -> Iterator[tuple[str, bytes]]:
    """(id, image bytes) -> the same, followed by the ids of its views with the same bytes, for `open_view`."""
    for picture, content in pictures:
        yield picture, content
        for name in view_ids(picture, config):
            yield name, content


def open_view(name: str, content: bytes, config: AugmentationConfig) -> Image.Image:
    """The id of a picture or of a view, and the picture's bytes -> RGB, upright and on white as it is
    served. UserError where they are damaged or cut off."""
    try:
        image = open_image(content)
    except UserError as problem:
        raise UserError(
            f"A picture of the data cannot be read (its SHA-256 is {picture_id_of(name)}): {problem} Take its rows out, or "
            "make the data again with training.convert, which leaves such pictures out."
        ) from problem
    return paint_view(image, draw_view(name, config)) if SEPARATOR in name else image
