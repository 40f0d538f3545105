"""One picture before it becomes rows: where it is, what is known of it, and how to load it.

In: an image file, or an SVG's text. Out: an RGBA picture of at most 256 pixels, and its bytes flattened on
white. Loading is a function in the record, so that every source can list all its pictures, and splits and wrong
answers can be drawn over all of them, without a single image in memory.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

MAX_SIDE = 256  # px of drawings and renders


class Row(NamedTuple):
    """One question about a picture. `task` is one of name, describe, category, yes, no, choice, colour, action, count,
    where, which, vqa, scene and chat."""

    task: str
    question: str
    answer: str
    conversation: str = ""  # rows with the same one are asked in the order of `turn`; empty: in any order
    turn: int = 0
    accepted: tuple[str, ...] | None = None  # short answers that are right; None: the picture's nouns
    references: tuple[str, ...] = ()  # all captions that people gave the picture
    objects: tuple[str, ...] = ()  # what is known to be in the picture


@dataclass(frozen=True)
class Picture:
    path: str  # unique over all sources: "<source>/<path inside the package>"
    source: str
    style: str  # finer than the source: the emoji set, else the source
    kind: str  # photo | drawing | render | synthetic | composited
    load: Callable[[], Image.Image]
    phrase: str = ""  # noun phrase with its article: "a great blue heron"; empty where `turns` says it all
    group: str = ""  # key of words.GROUPS: what it may be confused with
    action: str = ""  # "swimming", where somebody does something
    turns: tuple[tuple, ...] = ()  # the rows that the source itself brings: Row, or its first three fields
    split: str = ""  # the source's own split; empty: decided by splits.py
    # what is loaded -> a photograph's file as it is kept; None: encode what is loaded
    stored: Callable[[Image.Image], bytes] | None = None
    content: str = ""  # SHA-256 of the file, where it may be replaced under its name


def open_raster(data: bytes | Path) -> Image.Image:
    """Bytes or file -> RGBA, at most MAX_SIDE on the long side; never enlarged."""
    with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
        rgba = image.convert("RGBA")
    rgba.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return rgba


def render_svg(svg: str | Path) -> Image.Image:
    """SVG text or file -> RGBA, MAX_SIDE wide, and at most MAX_SIDE on the long side."""
    import resvg_py  # only the drawings need it

    svg = svg.read_text(encoding="utf-8", errors="replace") if isinstance(svg, Path) else svg
    # At resvg's default of 0 dpi, lengths in pt and mm are 0. Fonts differ from machine to machine, so letters are left out
    png = resvg_py.svg_to_bytes(svg_string=svg, width=MAX_SIDE, dpi=96, skip_system_fonts=True)
    return open_raster(bytes(png))


def flatten_on_white(image: Image.Image) -> Image.Image:
    """RGBA -> RGB; cut-outs have arbitrary colours under their transparent pixels."""
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def encode(image: Image.Image) -> bytes:
    """RGB -> WebP; the tiny synthetic shapes stay lossless, as PNG is smaller there."""
    buffer = io.BytesIO()
    if max(image.size) <= 64:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "WEBP", quality=90, method=4)
    return buffer.getvalue()
