"""Views of training pictures, and which answers hold for them; invented names."""

import io
import random
import re
from dataclasses import replace

import numpy as np
from PIL import Image

from training.augmentation import (
    NO_AUGMENTATION,
    AugmentationConfig,
    View,
    draw_view,
    invent_names,
    is_true_of,
    paint_view,
    picture_of,
    view_ids,
    with_views,
)
from vlm.model.prompts import PromptTurn

CONFIG = AugmentationConfig(views=2)
WHOLE, AS_IS = (0.0, 0.0, 1.0, 1.0), (1.0, 1.0, 1.0)


def half_red() -> Image.Image:
    image = Image.new("RGB", (100, 50), "white")
    image.paste("red", (0, 0, 50, 50))
    return image


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_views_mirror_crop_and_change_colours():
    mirrored = paint_view(half_red(), View(WHOLE, True, AS_IS))
    assert mirrored.getpixel((10, 10)) == (255, 255, 255) and mirrored.getpixel((90, 10)) == (255, 0, 0)
    assert paint_view(half_red(), View((0.5, 0.0, 1.0, 1.0), False, AS_IS)).size == (50, 50)
    assert paint_view(half_red(), View(WHOLE, False, (0.5, 1.0, 1.0))).getpixel((10, 10))[0] in (127, 128)
    assert paint_view(half_red(), View(WHOLE, False, AS_IS)).tobytes() == half_red().tobytes()


def test_an_answer_is_kept_only_where_it_stays_true():
    mirrored, cropped = View(WHOLE, True, AS_IS), View((0.0, 0.0, 0.9, 1.0), False, AS_IS)
    jittered = View(WHOLE, False, (1.1, 1.0, 1.0))
    assert is_true_of(mirrored, "colour") and not is_true_of(mirrored, "where")
    assert is_true_of(jittered, "where") and not is_true_of(jittered, "colour")
    assert is_true_of(mirrored, "count") and not is_true_of(cropped, "count")
    for view in (mirrored, cropped, jittered):
        assert is_true_of(view, "name") and not is_true_of(view, "") and not is_true_of(view, "vqa")


def test_views_are_drawn_by_the_picture_and_the_settings():
    names = [name for number in range(200) for name in view_ids(f"picture {number}", CONFIG)]
    views = [draw_view(name, CONFIG) for name in names]
    assert views == [draw_view(name, CONFIG) for name in names]
    for change in ("crop", "flip", "jitter"):
        assert 0.4 < np.mean([change in view.changes for view in views]) < 0.6
    assert all(view.box[2] - view.box[0] >= 0.8 and view.box[2] <= 1 for view in views)
    assert view_ids("a", AugmentationConfig(views=1)) != view_ids("a", AugmentationConfig(views=1, crop=0.1))
    never = AugmentationConfig(views=1, crop=0, flip=0, jitter=0)
    assert not any(draw_view(f"{number}", never).changes for number in range(50))
    assert view_ids("a", NO_AUGMENTATION) == []


def test_each_chosen_picture_is_followed_once_by_the_views_that_are_missing():
    rows = [("a", png(half_red()))] * 3 + [("b", png(half_red()))]
    names = [name for name, _ in with_views(rows, {"a"}, CONFIG, known=())]
    first, second = view_ids("a", CONFIG)
    assert names == ["a", first, second, "a", "a", "b"]
    assert [name for name, _ in with_views(rows, {"a"}, CONFIG, known={first})] == [
        "a",
        second,
        "a",
        "a",
        "b",
    ]
    assert picture_of(first) == picture_of("a") == "a"


TURN = PromptTurn(
    "Is it a horse, an anteater or a lion?", "An anteater.", asked_tags=("horse 3 left, anteater? 7, lion 2",)
)


def test_a_guessed_name_is_the_same_invented_one_in_question_tags_and_answer() -> None:
    for seed in range(40):
        turn = invent_names(TURN, 1.0, random.Random(seed))
        found = re.fullmatch(r"Is it a horse, (an?) (\w+) or a lion\?", turn.question)
        assert found
        article, name = found.groups()
        assert name != "anteater"
        assert article == ("an" if name[0] in "aeiou" else "a")
        assert turn.answer == f"{article.capitalize()} {name}."
        assert turn.asked_tags == (f"horse 3 left, {name}? 7, lion 2",)


def test_known_names_stay_and_guessed_ones_are_invented_as_often_as_told() -> None:
    draw = random.Random(0)
    assert invent_names(TURN, 0.0, draw) == TURN
    known = replace(TURN, asked_tags=("anteater 7",))
    assert invent_names(known, 1.0, draw) == known
    plural = replace(TURN, question="Are there anteaters?")  # its tags would name what it does not
    assert invent_names(plural, 1.0, draw) == plural
    assert 60 < sum(invent_names(TURN, 0.5, draw) != TURN for _ in range(200)) < 140
