"""Answers with their pictures -> one picture to look through. Pure functions of Pillow.

A grid of tiles, each the picture on white, the question, the answer and the truth. The words "right" and "wrong" stand
beside the colours; a caption is neither.
"""

import io
import random
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

MAX_TILES = 40
COLUMNS = 6
WIDTH, PICTURE, LINE, MARGIN = 240, 180, 18, 8  # pixels
LINES = 4  # of text for each of question, answer, truth
HEIGHT = PICTURE + 3 * LINES * LINE + 4 * MARGIN
WRONG, RIGHT, GREY, BLACK = "#b3261e", "#1b6e3c", "#5f6368", "#111111"


def chosen(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most MAX_TILES of the items, wrong ones first, evenly taken where there are more captions than that."""
    judged = sorted((item for item in items if item["right"] is not None), key=lambda item: item["right"])
    captions = [item for item in items if item["right"] is None]
    left = max(1, MAX_TILES - len(judged))
    return [*judged, *captions[:: -(-len(captions) // left)]][:MAX_TILES] if captions else judged[:MAX_TILES]


def drawn(of_runs: Sequence[Sequence[dict[str, Any]]], seed: int = 0) -> list[dict[str, Any]]:
    """At most MAX_TILES items about photographs, as many of each run, drawn by chance, each of another picture."""
    photographs = [[item for item in items if item["kind"] == "photo"] for items in of_runs]
    found: dict[str, dict[str, Any]] = {}
    waiting = [random.Random(seed).sample(items, len(items)) for items in photographs if items]
    while len(found) < MAX_TILES and any(waiting):
        for items in waiting:
            if items and len(found) < MAX_TILES:
                item = items.pop()
                found.setdefault(item["picture"], item)
    return list(found.values())


def contact_sheet(items: Sequence[dict[str, Any]], pictures: Mapping[str, bytes]) -> Image.Image:
    """Items in the order of their tiles, and image bytes by the picture's id, some of which may be missing."""
    columns = max(1, min(COLUMNS, len(items)))
    rows = max(1, -(-len(items) // columns))
    sheet = Image.new("RGB", (columns * WIDTH, rows * HEIGHT), "white")
    font = ImageFont.load_default(size=14)
    for index, item in enumerate(items):
        tile = draw_tile(item, pictures.get(item["picture"]), font)
        sheet.paste(tile, (index % columns * WIDTH, index // columns * HEIGHT))
    return sheet


def draw_tile(item: dict[str, Any], content: bytes | None, font: Any) -> Image.Image:
    tile = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(tile)
    verdict, colour = {None: ("answer", GREY), True: ("right", RIGHT), False: ("wrong", WRONG)}[item["right"]]
    draw.rectangle((2, 2, WIDTH - 3, HEIGHT - 3), outline=colour, width=3)
    picture = open_picture(content)
    if picture:
        picture.thumbnail((WIDTH - 4 * MARGIN, PICTURE - 2 * MARGIN))
        tile.paste(picture, ((WIDTH - picture.width) // 2, MARGIN + (PICTURE - picture.height) // 2))
    else:
        draw.text((WIDTH // 2, PICTURE // 2), "no picture", GREY, font, anchor="mm")
    texts = (
        (item["question"], GREY),
        (f"{verdict}: {item['answer'] or '(nothing)'}", colour),
        (f"truth: {item['truth']}", BLACK),
    )
    top = PICTURE + 2 * MARGIN
    for text, ink in texts:
        for line in wrap(text, font, WIDTH - 3 * MARGIN):
            draw.text((MARGIN + 4, top), line, ink, font)
            top += LINE
        top += LINE // 3
    return tile


def open_picture(content: bytes | None) -> Image.Image | None:
    try:
        return Image.open(io.BytesIO(content)).convert("RGB") if content else None
    except (OSError, UnidentifiedImageError):
        return None


def wrap(text: str, font: Any, width: int) -> list[str]:
    """At most LINES lines that fit; what does not ends in three dots."""
    lines, words = [""], " ".join(text.split()).split(" ")
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    kept = lines[:LINES]
    if len(lines) > LINES:
        kept[-1] += " ..."
    return [_shorten(line, font, width) for line in kept]


def _shorten(line: str, font: Any, width: int) -> str:
    while font.getlength(line) > width:
        line = line.removesuffix("...").rstrip()[:-1] + "..."
    return line
