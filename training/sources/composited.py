"""Cut-outs pasted on plain scenes: how many, where, and what colour, with exact answers.

In: the pictures of the other sources and their splits. Out: pictures of kind "composited" with their questions.
A scene is made of cut-outs of its own split only, so that what a test scene shows was never seen; everything about it is
drawn by a seed made of its number, so that it is the same on every machine.
"""

import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from PIL import Image, ImageDraw

from training.data.splits import SALT
from training.picture import Picture
from training.sources.nouns import plural
from training.wording.colours import NAMED_COLOURS, main_colour
from training.wording.instructions import CLEAR, countable, short_form
from training.wording.phrases import concept_of, inflector, may_be_confused, sentence
from training.wording.questions import COLOUR_OF, DESCRIBE, HOW_MANY, WHERE, WHICH_SIDE

SCENES = {"train": 3000, "validation": 150, "test": 600}
CUT_OUT_SOURCES = ("tuxpaint", "emoji", "sweethome3d", "openclipart")
GROUPS = CLEAR - {"face", "body", "symbol", "season", "sky", "household", "plant"}  # what is one clear thing
SIDE = 256  # px
NUMBERS = ("one", "two", "three", "four")
SIDES = {"across": ("left", "right"), "down": ("above", "below")}


class Placed(NamedTuple):
    picture: Picture
    centre: tuple[int, int]  # px
    size: int  # px, of the longer side
    mirrored: bool


def compose(pictures: Sequence[Picture], splits: Mapping[str, str]) -> list[Picture]:
    """Pictures of all sources -> the scenes of every split."""
    return [
        make_scene(split, number, pool)
        for split, count in SCENES.items()
        if (pool := [p for p in pictures if splits[p.path] == split and is_cut_out(p)])
        for number in range(count)
    ]


def is_cut_out(picture: Picture) -> bool:
    return (
        picture.source.startswith(CUT_OUT_SOURCES)
        and picture.group in GROUPS
        and countable(picture.phrase)
        and short_form(picture.phrase).startswith(("a ", "an "))
        and not picture.phrase.startswith("a pair of")
        and concept_of(picture.phrase) not in NAMED_COLOURS  # "a red" is an anemone
    )


def make_scene(split: str, number: int, pool: Sequence[Picture]) -> Picture:
    path = f"composited/{split}/{number}"
    rng = random.Random(f"{SALT} {path}")
    first = rng.choice(pool)
    others = (rng.choice(pool) for _ in range(100))
    second = next((p for p in others if not may_be_confused(p.phrase, first.phrase)), None)
    kind = rng.choice(("count", "sides"))
    if kind == "count" or second is None:
        placed, turns = count_scene(first, second, rng)
    else:
        placed, turns = side_scene(first, second, rng)
    load = partial(paint, placed, rng.random())
    return Picture(path, "composited", "composited", "composited", load, turns=tuple(turns), split=split)


def count_scene(thing: Picture, other: Picture | None, rng: random.Random) -> tuple[list[Placed], list]:
    """One to four of a thing, in half of the scenes with one or two of another."""
    count = rng.randint(1, 4)
    beside = rng.randint(1, 2) if other and rng.random() < 0.5 else 0
    cells = rng.sample([(x, y) for x in range(3) for y in range(2)], count + beside)
    placed = []
    for place, (x, y) in enumerate(cells):
        centre = 43 + 85 * x + rng.randint(-6, 6), 64 + 128 * y + rng.randint(-20, 20)
        picture = thing if place < count or other is None else other
        placed.append(Placed(picture, centre, rng.randint(62, 84), rng.random() < 0.3))
    seen = [(thing, count)] + ([(other, beside)] if other and beside else [])
    turns = [
        ("count", rng.choice(HOW_MANY).format(x=plural(named(p))), sentence(NUMBERS[n - 1])) for p, n in seen
    ]
    described = " and ".join(several(named(picture), n) for picture, n in seen)
    turns.append(("describe", rng.choice(DESCRIBE), sentence(described)))
    return placed, turns + colour_turns([picture for picture, _ in seen], rng)


def side_scene(first: Picture, second: Picture, rng: random.Random) -> tuple[list[Placed], list]:
    """Two things, beside each other or one above the other; which is which is drawn."""
    axis = rng.choice(tuple(SIDES))
    near, far = rng.randint(58, 78), SIDE - rng.randint(58, 78)
    across, drift = rng.randint(108, 148), rng.randint(-14, 14)
    centres = [(near, across), (far, across + drift)] if axis == "across" else [(across, near), (across, far)]
    placed = [
        Placed(picture, centre, rng.randint(84, 110), rng.random() < 0.3)
        for picture, centre in zip((first, second), centres, strict=True)
    ]
    turns = []
    for thing, other, side in ((first, second, 0), (second, first, 1)):
        a, b = f"the {named(thing)}", f"the {named(other)}"
        here, there = SIDES[axis][side], SIDES[axis][1 - side]
        turns.append(("where", rng.choice(WHERE[axis]).format(a=a, b=b), sentence(here)))
        asked = rng.choice((here, there))
        answer = f"the {named(thing if asked == here else other)}"
        options = [a, b]
        rng.shuffle(options)
        question = rng.choice(WHICH_SIDE[asked]).format(a=options[0], b=options[1])
        turns.append(("which", question, sentence(answer)))
    described = f"{short_form(first.phrase)} and {short_form(second.phrase)}"
    turns.append(("describe", rng.choice(DESCRIBE), sentence(described)))
    return placed, turns + colour_turns([first, second], rng)


def colour_turns(pictures: Sequence[Picture], rng: random.Random) -> list[tuple[str, str, str]]:
    colours = [(picture, main_colour(picture.load())) for picture in pictures]
    return [
        ("colour", rng.choice(COLOUR_OF).format(x=named(picture)), sentence(colour))
        for picture, colour in colours
        if colour
    ]


def named(picture: Picture) -> str:
    """'a great blue heron' -> 'heron'"""
    return concept_of(picture.phrase)


def several(noun: str, count: int) -> str:
    return inflector().a(noun) if count == 1 else f"{NUMBERS[count - 1]} {plural(noun)}"


def paint(placed: Sequence[Placed], seed: float) -> Image.Image:
    """The scene, opaque RGBA of SIDE x SIDE: a flat colour, or a sky over a ground."""
    rng = random.Random(seed)
    scene = Image.new("RGBA", (SIDE, SIDE), pale(rng))
    if rng.random() < 0.4:
        ImageDraw.Draw(scene).rectangle((0, rng.randint(100, 200), SIDE, SIDE), fill=pale(rng))
    for picture, (x, y), size, mirrored in placed:
        cut_out = picture.load()
        cut_out = cut_out.crop(cut_out.getchannel("A").getbbox())
        scale = size / max(cut_out.size)
        width, height = (max(1, round(scale * length)) for length in cut_out.size)
        cut_out = cut_out.resize((width, height), Image.Resampling.LANCZOS)
        if mirrored:
            cut_out = cut_out.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        corner = (
            min(max(0, middle - length // 2), SIDE - length) for middle, length in ((x, width), (y, height))
        )
        scene.alpha_composite(cut_out, tuple(corner))
    return scene


def pale(rng: random.Random) -> tuple[int, int, int]:
    return rng.randint(190, 255), rng.randint(190, 255), rng.randint(190, 255)
