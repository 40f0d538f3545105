"""Scenes made of cut-outs: the answers are read off the pixels again."""

from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
from PIL import Image, ImageDraw

from training.picture import Picture
from training.sources import composited

SHAPES = {"cat": "red", "car": "blue", "apple": "green", "drum": "black"}
GROUPS = {"cat": "mammal", "car": "vehicle", "apple": "fruit", "drum": "music"}


def square(colour: str) -> Image.Image:
    image = Image.new("RGBA", (60, 60), (0, 0, 0, 0))
    ImageDraw.Draw(image).rectangle((5, 5, 54, 54), fill=colour)
    return image


def cut_out(noun: str, split: str) -> Picture:
    article = "an" if noun == "apple" else "a"
    return Picture(
        f"emoji/{split}/{noun}",
        "emoji",
        "noto",
        "drawing",
        partial(square, SHAPES[noun]),
        f"{article} {noun}",
        GROUPS[noun],
        split=split,
    )


@pytest.fixture(scope="module")
def scenes() -> list[Picture]:
    pictures = [
        cut_out("cat", "train"),
        cut_out("car", "train"),
        cut_out("apple", "test"),
        cut_out("drum", "test"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(composited, "SCENES", {"train": 60, "test": 20})
        return composited.compose(pictures, {picture.path: picture.split for picture in pictures})


@cache
def places(scene: Picture, noun: str) -> list[tuple[float, float]]:
    """Centres of the patches in the noun's colour, found in every second pixel of the picture: filling takes long."""
    pixels = np.asarray(scene.load().convert("RGB"))[::2, ::2].astype(int)  # [128, 128, 3]
    colour = np.array(Image.new("RGB", (1, 1), SHAPES[noun]).getpixel((0, 0)))
    near = Image.fromarray(np.uint8(np.abs(pixels - colour).sum(axis=2) < 60)).copy()
    centres = []
    for label in range(2, 8):
        found = np.argwhere(np.array(near) == 1)  # (row, column) of what is not filled yet
        if len(found):
            ImageDraw.floodfill(near, tuple(found[0, ::-1].tolist()), label)
            centres.append(tuple(np.argwhere(np.array(near) == label).mean(axis=0)[::-1]))
    return centres


def noun_in(text: str) -> str:
    return next(noun for noun in SHAPES if noun in text)


@pytest.mark.slow
def test_the_count_is_what_the_picture_shows(scenes):
    counted = [(scene, turn) for scene in scenes for turn in scene.turns if turn[0] == "count"]
    assert {answer for _, (_, _, answer) in counted} == {"One.", "Two.", "Three.", "Four."}
    for scene, (_, question, answer) in counted:
        assert composited.NUMBERS[len(places(scene, noun_in(question))) - 1] == answer[:-1].lower()


@pytest.mark.slow
def test_the_side_is_what_the_picture_shows(scenes):
    asked = [(scene, turn) for scene in scenes for turn in scene.turns if turn[0] == "where"]
    assert {answer for _, (_, _, answer) in asked} == {"Left.", "Right.", "Above.", "Below."}
    checked = 0
    for scene, (_, question, answer) in asked:
        nouns = {noun: places(scene, noun) for noun in SHAPES}
        subject = min((noun for noun in SHAPES if f"is the {noun}" in question.lower()), default=None)
        if subject is None:
            continue  # the few wordings in another order
        checked += 1
        ((x, y),), ((other_x, other_y),) = (
            nouns[subject],
            next(found for noun, found in nouns.items() if found and noun != subject),
        )
        across, down = "Left." if x < other_x else "Right.", "Above." if y < other_y else "Below."
        assert answer == (across if answer in ("Left.", "Right.") else down)
    assert checked > len(asked) / 2


def test_the_colour_is_that_of_the_thing_asked_for(scenes):
    asked = [turn for scene in scenes for turn in scene.turns if turn[0] == "colour"]
    assert asked
    for _, question, answer in asked:
        assert answer == f"{SHAPES[noun_in(question)].capitalize()}."


@pytest.mark.slow
def test_a_scene_shows_cut_outs_of_its_own_split_only(scenes):
    shown = {
        split: {noun for s in scenes if s.split == split for noun in SHAPES if places(s, noun)}
        for split in ("train", "test")
    }
    assert shown == {"train": {"cat", "car"}, "test": {"apple", "drum"}}


def test_scenes_are_the_same_every_time_and_do_not_give_the_answer_away(scenes):
    again = composited.make_scene("train", 0, [cut_out("cat", "train"), cut_out("car", "train")])
    assert again.turns == scenes[0].turns and again.load().tobytes() == scenes[0].load().tobytes()
    sides = [answer for scene in scenes for task, _, answer in scene.turns if task == "where"]
    assert sides.count("Left.") == sides.count("Right.") and sides.count("Above.") == sides.count("Below.")


@pytest.mark.parametrize(
    ("noun", "many"), [("mouse", "mice"), ("knife", "knives"), ("sheep", "sheep"), ("bus", "buses")]
)
def test_plurals(noun, many):
    assert composited.plural(noun) == many


def test_what_is_no_single_clear_thing_is_not_pasted():
    cat = cut_out("cat", "train")
    assert composited.is_cut_out(cat)
    for phrase in ("a pair of scissors", "some grapes", "bread", "a red", "the sun"):
        assert not composited.is_cut_out(replace(cat, phrase=phrase))
    assert not composited.is_cut_out(replace(cat, group="face"))
    assert not composited.is_cut_out(replace(cat, source="art4apps"))
