"""Open Clip Art on a tiny package made here: nothing is downloaded."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from training.picture import Picture
from training.sources import openclipart

SVG = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:dc="http://purl.org/dc/elements/1.1/"
viewBox="0 0 16 16"><dc:title>{}</dc:title><circle cx="8" cy="8" r="7"/></svg>"""
Add = Callable[..., Path]


@pytest.fixture
def add(tmp_path: Path) -> Add:
    """Adds one drawing, unlike every other unless told its colour, to both packages -> its PNG."""
    colours = iter(range(1, 200))

    def add_drawing(name: str, title: str, colour: int = 0) -> Path:
        png = tmp_path / "png/usr/share/openclipart/png" / f"{name}.png"
        svg = tmp_path / "svg/usr/share/openclipart/svg" / f"{name}.svg"
        for file in (png, svg):
            file.parent.mkdir(parents=True, exist_ok=True)
        page = Image.new("RGBA", (40, 40))
        page.paste((colour or next(colours), 0, 0, 255), (10, 10, 30, 20))
        page.save(png)
        svg.write_text(SVG.format(title), encoding="utf-8")
        return png

    return add_drawing


@pytest.fixture
def read(tmp_path: Path) -> Callable[[], list[Picture]]:
    return lambda: openclipart.read(tmp_path / "png", tmp_path / "svg")


def test_a_good_title_becomes_a_picture(add: Add, read: Callable[[], list[Picture]]) -> None:
    add("food/fruit/lemon_whole_01", "Lemon (B and W)")
    (picture,) = read()
    assert (picture.phrase, picture.group, picture.kind) == ("a lemon", "fruit", "drawing")
    assert picture.path == "openclipart/food/fruit/lemon_whole_01.png"
    assert (picture.source, picture.style) == ("openclipart", "openclipart")


def test_links_copies_stars_and_icons_are_passed_over(add: Add, read: Callable[[], list[Picture]]) -> None:
    lemon = add("food/fruit/lemon_01", "Lemon", colour=250)
    add("food/lemon_again_01", "Lemon", colour=250)
    add("shapes/stars/star_05_lemon", "lemon")
    add("computer/icons/flat-theme/device/printer_01", "printer")
    (lemon.parent / "linked.png").symlink_to(lemon)
    lime = add("food/fruit/lime_01", "Lime")
    lime.unlink()
    lime.symlink_to(lemon)
    assert [picture.phrase for picture in read()] == ["a lemon"]


@pytest.mark.parametrize(
    ("title", "phrase"),
    [
        ("Rana01", "a frog"),
        ("A simple pig", "a pig"),
        ("wooden table", "a wooden table"),
        ("scissors_02", "a pair of scissors"),
        ("cheese pizza slice", "a slice of pizza"),
        ("Architetto Francesco Rollandini", ""),
        ("Vacca pezzata rossa valdostana", ""),
        ("colour", ""),
        ("eris table", ""),
        ("12", ""),
        ("", ""),
    ],
)
def test_only_names_of_things_are_captions(
    add: Add, read: Callable[[], list[Picture]], title: str, phrase: str
) -> None:
    add("animals/thing_7_01", title)
    assert [picture.phrase for picture in read()] == ([phrase] if phrase else [])


def test_the_file_name_stands_in_for_a_template_title(add: Add, read: Callable[[], list[Picture]]) -> None:
    add("food/fruit/banana", "Clipart by Nicu Buculei - antenna")
    assert [picture.phrase for picture in read()] == ["a banana"]


def test_keywords_and_a_missing_svg_caption_nothing(
    add: Add, read: Callable[[], list[Picture]], tmp_path: Path
) -> None:
    add("food/lemon_01", "Lemon")
    (tmp_path / "svg/usr/share/openclipart/svg/food/lemon_01.svg").unlink()
    assert read() == []


def test_a_picture_is_cropped_to_what_is_drawn(add: Add, read: Callable[[], list[Picture]]) -> None:
    add("food/lemon_01", "Lemon")
    assert read()[0].load().size == (20, 10)


def test_a_png_too_large_to_decode_is_drawn_from_the_svg(
    add: Add, read: Callable[[], list[Picture]], monkeypatch: pytest.MonkeyPatch
) -> None:
    add("food/lemon_01", "Lemon")
    monkeypatch.setattr(openclipart, "LARGEST", 1000)
    assert read()[0].load().size == (256, 256)
