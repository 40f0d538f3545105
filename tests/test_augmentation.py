"""Views of training pictures, and which answers hold for them."""

import io

import numpy as np
from PIL import Image

from training.data.augmentation import (
    NO_AUGMENTATION,
    AugmentationConfig,
    View,
    draw_view,
    is_true_of,
    open_view,
    paint_view,
    picture_id_of,
    view_ids,
    with_views,
)

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


def test_views_mirror_crop_and_change_colours() -> None:
    mirrored = paint_view(half_red(), View(WHOLE, True, AS_IS))
    assert mirrored.getpixel((10, 10)) == (255, 255, 255) and mirrored.getpixel((90, 10)) == (255, 0, 0)
    assert paint_view(half_red(), View((0.5, 0.0, 1.0, 1.0), False, AS_IS)).size == (50, 50)
    assert paint_view(half_red(), View(WHOLE, False, (0.5, 1.0, 1.0))).getpixel((10, 10))[0] in (127, 128)
    assert paint_view(half_red(), View(WHOLE, False, AS_IS)).tobytes() == half_red().tobytes()


def test_an_answer_is_kept_only_where_it_stays_true() -> None:
    mirrored, cropped = View(WHOLE, True, AS_IS), View((0.0, 0.0, 0.9, 1.0), False, AS_IS)
    jittered = View(WHOLE, False, (1.1, 1.0, 1.0))
    assert is_true_of(mirrored, "colour") and not is_true_of(mirrored, "where")
    assert is_true_of(jittered, "where") and not is_true_of(jittered, "colour")
    assert is_true_of(mirrored, "count") and not is_true_of(cropped, "count")
    for view in (mirrored, cropped, jittered):
        assert is_true_of(view, "name") and not is_true_of(view, "") and not is_true_of(view, "vqa")


def test_views_are_drawn_by_the_picture_and_the_settings() -> None:
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


def test_each_picture_is_followed_by_its_views_which_are_painted_when_they_are_opened() -> None:
    content = png(half_red())
    first, second = view_ids("a", CONFIG)
    others = view_ids("b", CONFIG)
    given = list(with_views([("a", content), ("b", content)], CONFIG))
    assert given == [(name, content) for name in ("a", first, second, "b", *others)]
    assert picture_id_of(first) == picture_id_of("a") == "a"
    assert list(with_views([("a", content)], NO_AUGMENTATION)) == [("a", content)]
    assert open_view("a", content, CONFIG).tobytes() == half_red().tobytes()
    painted = paint_view(half_red(), draw_view(first, CONFIG))
    assert open_view(first, content, CONFIG).tobytes() == painted.tobytes()
    assert any(
        open_view(name, content, CONFIG).tobytes() != half_red().tobytes()
        for name in (first, second, *others)
    )


def test_a_picture_is_trained_on_upright_and_on_white_as_it_is_served() -> None:
    turned, buffer = Image.Exif(), io.BytesIO()
    turned[0x0112] = 6  # the camera was held on its side
    half_red().save(buffer, "JPEG", exif=turned)
    assert open_view("a", buffer.getvalue(), NO_AUGMENTATION).size == (50, 100)
    clear = png(Image.new("RGBA", (20, 20), (0, 0, 0, 0)))
    assert open_view("a", clear, NO_AUGMENTATION).getpixel((5, 5)) == (255, 255, 255)
