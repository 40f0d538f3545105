"""A picture and what was said of it -> where that was seen: occlusion (Zeiler and Fergus 2014, arXiv:1311.2901).

Cells of the picture are greyed out in turn. Where the tagger's probability of the name falls most, it was seen. Only the
eyes are asked, so it is the same for every engine.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from vlm.chat.answer import Picture
from vlm.chat.words import content_words
from vlm.errors import UserError
from vlm.inputs.images import open_image
from vlm.model.eyes import Eyes

CELLS = 7  # a side; the encoder's last map has 9 to 10
REACH = 2  # cells that are greyed out together, so that a thing on the border of two is covered too
SEEN_FROM = 0.02  # chance of a name
SIDE = 512  # pixels of the picture that is shown


class Look(NamedTuple):
    """`name` with its chance in the whole picture, how far the look has come (0 to 1), and at the end the picture, bright
    where it mattered."""

    name: str
    chance: float
    done: float
    picture: Image.Image | None = None


def where_it_looked(eyes: Eyes, picture: Picture, said: str) -> Iterator[Look]:
    """Looks at the likeliest of the tags that the answer names, or at the likeliest of all. Raises UserError.

    A name that the answer only denies ("No, there is no dog.") has next to no chance, and is not looked for."""
    tagger = eyes.tagger
    if tagger is None:
        raise UserError("This model gives no names with a probability, so there is nothing to show.")
    image = open_image(picture)
    image.thumbnail((SIDE, SIDE))
    whole = _chances(eyes, [image])[0]
    name = _named(tagger.names, whole, said)
    chance, falls = float(whole[name]), np.zeros((CELLS, CELLS))
    starts = range(1 - REACH, CELLS)
    for row in starts:
        covered = _chances(eyes, [_covered(image, row, column) for column in starts])
        for column, chances in zip(starts, covered, strict=True):
            cells = np.s_[max(0, row) : row + REACH, max(0, column) : column + REACH]
            falls[cells] += max(0.0, chance - float(chances[name]))
        yield Look(tagger.names[name], chance, (row + REACH) / (CELLS + REACH - 1))
    yield Look(tagger.names[name], chance, 1.0, _painted(image, falls))


@torch.inference_mode()
def _chances(eyes: Eyes, images: list[Image.Image]) -> torch.Tensor:
    """[B, number of names]"""
    assert eyes.tagger
    return eyes.tagger.chances(eyes.tagger.pool(eyes.vision.see(images)))


def _named(names: list[str], chances: torch.Tensor, said: str) -> int:
    spoken = set(content_words(said))
    best = chances.argsort(descending=True).tolist()
    seen = [each for each in best[:20] if chances[each] >= SEEN_FROM]
    return next((each for each in seen if set(content_words(names[each])) & spoken), best[0])


def _covered(image: Image.Image, row: int, column: int) -> Image.Image:
    covered = image.copy()
    edge = [round(image.width * place / CELLS) for place in (column, column + REACH)]
    side = [round(image.height * place / CELLS) for place in (row, row + REACH)]
    covered.paste((128, 128, 128), (max(0, edge[0]), max(0, side[0]), edge[1], side[1]))
    return covered


def _painted(image: Image.Image, falls: np.ndarray) -> Image.Image:
    """As it is where the name depends on the picture; the rest grey and dark: some pictures have no colours."""
    share = falls / falls.max() if falls.max() else falls
    mask = Image.fromarray((255 * share).astype(np.uint8)).resize(image.size, Image.Resampling.BICUBIC)
    strength = np.asarray(mask, np.float32)[..., None] / 255
    grey = 0.3 * np.asarray(image.convert("L"), np.float32)[..., None] + 15
    painted = grey * (1 - strength) + np.asarray(image, np.float32) * strength
    return Image.fromarray(painted.round().clip(0, 255).astype(np.uint8))
