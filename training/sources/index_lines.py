"""One line of an `index.jsonl` -> what is known of a photograph, and what is wrong with the line.

A line is a JSON object with `image` (a path below the folder) and one or more of `captions`, `qa` (`q`, `a`),
`boxes` (`name`, `box`: [x, y, w, h] from the top left, 0 to 1), `label` with `coarse`, and `classes` (`name`, `share`,
`cx`, `cy`). Wrong boxes are left out together, because a count of the others would be wrong.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from training.untrusted import fault, leads_out

SLACK = 0.01  # how far a rounded box may reach out of the picture


class Box(NamedTuple):
    """From the top left, 0 to 1."""

    name: str
    x: float
    y: float
    width: float
    height: float

    @property
    def area(self) -> float:
        return self.width * self.height

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


class Region(NamedTuple):
    name: str
    share: float  # of the picture's area
    x: float  # its centre
    y: float


@dataclass(frozen=True)
class Known:
    """What an index knows of one photograph."""

    image: str
    captions: tuple[str, ...] = ()
    questions: tuple[tuple[str, str], ...] = ()
    boxes: tuple[Box, ...] = ()
    label: str = ""
    coarse: str = ""
    regions: tuple[Region, ...] = ()


def read_line(line: str, folder: Path) -> tuple[Known | None, list[str]]:
    """-> what is known, or None; and a clause for each fault."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None, ["this is not JSON; the line is skipped"]
    if not isinstance(values, dict) or not isinstance(values.get("image"), str) or not values["image"]:
        return None, ['there is no "image" that names a file; the line is skipped']
    if problem := picture_fault(folder, values["image"]):
        return None, [f"{problem}; the line is skipped"]
    found: dict[str, Any] = {}
    problems = []
    for key, (name, parse) in FIELDS.items():
        if key in values:
            try:
                found[name] = parse(values[key])
            except (TypeError, ValueError, KeyError, AttributeError) as problem:
                problems.append(f'"{key}" is left out: {problem if str(problem) else "it is malformed"}')
    if not any(found.values()):
        return None, [*problems, "nothing is known of the picture; the line is skipped"]
    return Known(values["image"], **found), problems


def picture_fault(folder: Path, name: str) -> str:
    """Why the picture cannot be opened; empty where its header says that it can."""
    if leads_out(os.path.normpath(name)):
        return f"{name} leads out of the folder"
    try:
        with Image.open(folder / name) as image:
            return "" if min(image.size) >= 16 else f"the picture {name} is smaller than 16 pixels"
    except FileNotFoundError:
        return f"there is no picture {name}"
    except Exception:  # damaged headers raise SyntaxError, struct.error and others
        return f"the picture {name} cannot be read"


def text_of(value: Any) -> str:
    if problem := fault(value, "text"):
        raise ValueError(f"{problem}: {str(value)[:60]!r}")
    return " ".join(value.split())


def texts_of(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise ValueError("it is no list")
    return tuple(text_of(value) for value in values)


def questions_of(values: Any) -> tuple[tuple[str, str], ...]:
    return tuple((text_of(pair["q"]), text_of(pair["a"])) for pair in values)


def boxes_of(values: Any) -> tuple[Box, ...]:
    return tuple(box_of(value, place) for place, value in enumerate(values, 1))


def box_of(value: Any, place: int) -> Box:
    numbers = value["box"]
    if not isinstance(numbers, list) or len(numbers) != 4 or not all(is_fraction(n) for n in numbers):
        raise ValueError(f"box {place} is not four numbers from 0 to 1")
    x, y, width, height = numbers
    if not (width > 0 and height > 0 and x + width <= 1 + SLACK and y + height <= 1 + SLACK):
        raise ValueError(f"box {place} is empty or reaches out of the picture")
    return Box(text_of(value["name"]), x, y, width, height)


def regions_of(values: Any) -> tuple[Region, ...]:
    found = []
    for place, value in enumerate(values, 1):
        numbers = [value["share"], value["cx"], value["cy"]]
        if not all(is_fraction(number) for number in numbers):
            raise ValueError(f"share and centre of class {place} are not numbers from 0 to 1")
        found.append(Region(text_of(value["name"]), *numbers))
    return tuple(found)


def is_fraction(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


FIELDS = {
    "captions": ("captions", texts_of),
    "qa": ("questions", questions_of),
    "boxes": ("boxes", boxes_of),
    "label": ("label", text_of),
    "coarse": ("coarse", text_of),
    "classes": ("regions", regions_of),
}
