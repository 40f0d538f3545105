"""The data pipeline on tiny packages made here: nothing is downloaded."""

import io
import json
import shutil
import subprocess
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from training import prepare
from training.data import parquet_file, splits
from training.data.held_out import KeptOut, held_out_likenesses, likeness
from training.picture import Picture, encode, flatten_on_white, render_svg
from training.sources import art4apps, composited, easyvqa, emoji, packages, sweethome, tuxpaint
from training.sources.card import make_card, to_markdown
from training.wording.colours import main_colour
from training.wording.instructions import Phrases, make_rows
from training.wording.phrases import accepted_nouns, concept_of, head_noun, may_be_confused, with_article

CIRCLE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7"/></svg>'
ANIMALS = "zebra lion tiger giraffe elephant camel donkey horse koala wombat badger beaver".split()


def paint(seed: int) -> Image.Image:
    """A cut-out that is unlike every other seed's, even mirrored."""
    random = np.random.default_rng(seed)
    image = Image.new("RGBA", (96, 96), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    for x in range(0, 96, 12):
        for y in range(0, 96, 12):
            draw.rectangle((x, y, x + 11, y + 11), fill=(*random.integers(0, 220, 3).tolist(), 255))
    return image


def mirrored(seed: int) -> Image.Image:
    return paint(seed).transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def photograph(number: int, **changes) -> Picture:
    name = ANIMALS[number % len(ANIMALS)]
    fields = {
        "path": f"tuxpaint/animals/{number}.png",
        "source": "tuxpaint",
        "style": "tuxpaint",
        "kind": "photo",
    }
    fields |= {"load": partial(paint, number), "phrase": with_article(name), "group": "mammal"}
    return Picture(**(fields | changes))


def drawing(number: int, **changes) -> Picture:
    changes = {
        "path": f"emoji/noto/{number}",
        "source": "emoji",
        "style": "noto",
        "kind": "drawing",
    } | changes
    return photograph(number, **({"load": partial(paint, number)} | changes))


@pytest.fixture
def small_test(monkeypatch):
    monkeypatch.setattr(splits, "TEST_PHOTOGRAPHS", 3)
    monkeypatch.setattr(splits, "VALIDATION_PHOTOGRAPHS", 2)
    monkeypatch.setattr(splits, "CONCEPT_SHARE", 0.0)
    monkeypatch.setattr(composited, "SCENES", {"train": 3, "validation": 1, "test": 2})


@pytest.fixture
def listed() -> dict[str, list[Picture]]:
    return {
        "tuxpaint": [photograph(n) for n in range(12)],
        "emoji-noto": [drawing(n) for n in range(100, 130)],
    }


def read_rows(folder: Path) -> list[dict]:
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def card_of(folder: Path) -> dict:
    return make_card(folder, {file.stem: () for file in sorted(folder.glob("*.parquet"))})


# Phrases


@pytest.mark.parametrize(
    ("label", "phrase"),
    [
        ("zebra", "a zebra"),
        ("owl", "an owl"),
        ("unicorn", "a unicorn"),
        ("uniform", "a uniform"),
        ("university", "a university"),
        ("umbrella", "an umbrella"),
        ("hourglass", "an hourglass"),
        ("ewe", "a ewe"),
        ("grapes", "some grapes"),
        ("glass", "a glass"),
        ("octopus", "an octopus"),
        ("bus", "a bus"),
        ("rhinoceros", "a rhinoceros"),
        ("scissors", "a pair of scissors"),
        ("bread", "bread"),
        ("nest with eggs", "a nest with eggs"),
        ("person lifting weights", "a person lifting weights"),
        ("sun", "the sun"),
        ("Santa Claus", "Santa Claus"),
        ("christmas tree", "a Christmas tree"),
    ],
)
def test_labels_get_the_article_a_person_would_use(label, phrase):
    assert with_article(label) == phrase


@pytest.mark.parametrize(
    ("phrase", "noun"),
    [
        ("a great blue heron", "heron"),
        ("a pair of pliers", "pliers"),
        ("a bunch of grapes", "grapes"),
        ("a glass of water", "glass"),
        ("a walnut in its shell", "walnut"),
        ("a sea lion", "sea lion"),
        ("a teddy bear", "teddy bear"),
        ("an electric guitar", "guitar"),
        ("a very small pumpkin", "pumpkin"),
    ],
)
def test_the_head_noun_is_found(phrase, noun):
    assert head_noun(phrase) == noun


def test_aliases_are_accepted_in_the_direction_a_person_would():
    assert "deer" in accepted_nouns("a doe") and "doe" not in accepted_nouns("a deer")
    assert "bunny" in accepted_nouns("a little rabbit")
    assert "pen" not in accepted_nouns("a grave marker")


def test_phrases_that_may_both_be_right_are_confused():
    assert may_be_confused("a doe", "a deer")
    assert may_be_confused("a ticket", "some tickets")
    assert may_be_confused("a guitar", "an electric guitar")
    assert not may_be_confused("a zebra", "a lion")


# Sources


def test_tux_paint_knows_photographs_from_drawings_and_mends_captions(tmp_path):
    root = tmp_path / "usr/share/tuxpaint/stamps"
    captions = {
        "animals/mammals/equines/zebra": "A zebra.\nfr.utf8=Un zèbre.",
        "animals/mammals/cats/cartoon/lion": "A happy lion!",
        "animals/birds/swallow": "A swallow.",
        "food/vegetables/broccoli": "Eat your broccoli!",
        "seasonal/drinks": "Remember to drink.",
        "symbols/math/1": "One.",
    }
    for number, (name, text) in enumerate(captions.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".txt").write_text(text, encoding="utf-8")
        if name.endswith("swallow"):
            path.with_suffix(".svg").write_text(CIRCLE)
        else:
            paint(number).save(path.with_suffix(".png"))
    found = {
        picture.path: (picture.kind, picture.phrase, picture.group) for picture in tuxpaint.read(tmp_path)
    }
    assert found == {
        "tuxpaint/animals/mammals/equines/zebra.png": ("photo", "a zebra", "mammal"),
        "tuxpaint/animals/mammals/cats/cartoon/lion.png": ("drawing", "a happy lion", "mammal"),
        "tuxpaint/animals/birds/swallow.svg": ("drawing", "a swallow", "bird"),
        "tuxpaint/food/vegetables/broccoli.png": ("photo", "broccoli", "vegetable"),
    }
    assert all(max(picture.load().size) <= 256 for picture in tuxpaint.read(tmp_path))


def make_emoji(folder: Path) -> None:
    labels = folder / "labels/package"
    (labels / "en").mkdir(parents=True)
    (labels / "meta").mkdir()
    subgroups = {"1": "animal-mammal", "2": "country-flag", "3": "person-activity"}
    (labels / "meta/groups.json").write_text(json.dumps({"subgroups": subgroups}))
    entries = [("zebra", "1F993", 1), ("flag: Chile", "1F1E8", 2), ("person running", "1F3C3", 3)]
    entries += [("man running", "1F3C3-200D-2642-FE0F", 3), ("dog face", "1F436", 1)]
    data = [{"label": label, "hexcode": code, "subgroup": group} for label, code, group in entries]
    (labels / "en/data.json").write_text(json.dumps(data))
    icons = folder / "noto/package"
    icons.mkdir(parents=True)
    bodies = {
        "zebra": {"body": "<rect width='9' height='9'/>"},
        "dog-face": {"body": "<rect width='5' height='5'/>"},
    }
    (icons / "icons.json").write_text(json.dumps({"icons": bodies, "width": 16, "height": 16}))
    (icons / "chars.json").write_text(json.dumps({"1f993": "zebra"}))
    files = folder / "fluent/package/assets"
    files.mkdir(parents=True)
    paint(1).save(files / "1f3c3-fe0f.webp")


def test_emoji_are_found_by_code_point_by_name_and_by_file(tmp_path):
    make_emoji(tmp_path)
    icons = emoji.read(tmp_path / "labels", "noto", tmp_path / "noto")
    assert [(p.phrase, p.group, p.load().size) for p in icons] == [
        ("a zebra", "mammal", (256, 256)),
        ("a dog", "mammal", (256, 256)),
    ]
    files = emoji.read(tmp_path / "labels", "fluent-3d", tmp_path / "fluent")
    assert [(p.phrase, p.action, p.kind) for p in files] == [("a person running", "running", "render")]


def test_art4apps_words_become_things_and_actions(tmp_path):
    root = tmp_path / "usr/share/games/pysiogame/res/images/art4apps"
    for name in ("animals/owl", "actions/dance", "actions/slurp", "fruit_n_veg/grapes"):
        path = root / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        paint(1).convert("RGB").save(path)
    found = [(p.phrase, p.group, p.action) for p in art4apps.read(tmp_path)]
    assert found == [
        ("two people dancing", "action", "dancing"),
        ("an owl", "bird", ""),
        ("some grapes", "fruit", ""),
    ]


def test_sweet_home_names_are_kept_and_brands_are_not(tmp_path):
    root = tmp_path / "usr/share/sweethome3d/furniture"
    root.mkdir(parents=True)
    paint(1).save(tmp_path / "icon.png")
    names = ["Armchair", "Renault Scenic", "Wall flat TV"]
    lines = [f"name#{n}={name}\nicon#{n}=/x/{n}.png" for n, name in enumerate(names)]
    with zipfile.ZipFile(root / "Scopia.sh3f", "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", "\n".join(lines))
        for number in range(len(names)):
            archive.write(tmp_path / "icon.png", f"x/{number}.png")
    found = sweethome.read(tmp_path)
    assert [(p.phrase, p.group) for p in found] == [
        ("an armchair", "furniture"),
        ("a television", "electronics"),
    ]
    assert found[0].load().mode == "RGBA"


def test_easy_vqa_keeps_its_split_and_answers_in_sentences(tmp_path):
    for part in ("train", "test"):
        data = tmp_path / "easy_vqa/data" / part
        (data / "images").mkdir(parents=True)
        paint(1).save(data / "images/0.png")
        questions = [["what shape is present?", "circle", 0], ["what is the color of the circle?", "blue", 0]]
        (data / "questions.json").write_text(json.dumps([*questions, ["is there a circle?", "yes", 0]]))
    test, train = easyvqa.read(tmp_path)
    assert (test.split, test.kind) == ("test", "synthetic") and train.split in ("train", "validation")
    assert [answer for _, _, answer in test.turns] == ["A circle.", "Blue.", "Yes."]
    assert [question for _, question, _ in test.turns][0] == "what shape is present?"
    assert (
        easyvqa.shape_named([("what shape is present?", "circle"), ("what color is it?", "blue")])
        == "blue circle"
    )


def test_svgs_measured_in_points_are_rendered():
    assert render_svg(CIRCLE.replace("viewBox", 'width="128pt" height="64pt" viewBox')).size == (256, 128)


# Instructions


@pytest.mark.slow
def test_each_thing_is_asked_about_as_often_present_as_absent():
    pictures = [drawing(n) for n in range(600)]
    phrases = Phrases(pictures)
    rows = [row for picture in pictures for row in make_rows(picture, paint(1), phrases, "train")]
    yes = [row.answer for row in rows if row.task == "yes"]
    no = [row.answer for row in rows if row.task == "no"]
    assert len(yes) == len(no) == len(pictures)
    assert all(answer.startswith("Yes, ") for answer in yes) and all(
        answer.startswith("No, ") for answer in no
    )
    for name in ANIMALS:  # neither the question nor its noun gives the answer away
        asked = [row.task for row in rows if row.task in ("yes", "no") and f" {name}" in row.question]
        assert 0.35 < asked.count("yes") / len(asked) < 0.65


def test_the_four_choices_hold_the_right_one_in_any_place():
    pictures = [drawing(n) for n in range(200)]
    phrases = Phrases(pictures)
    places = []
    for picture in pictures:
        row = next(row for row in make_rows(picture, paint(1), phrases, "train") if row.task == "choice")
        noun = concept_of(picture.phrase)
        assert row.answer == f"{picture.phrase[0].upper()}{picture.phrase[1:]}."
        offered = sorted((row.question.find(name), name) for name in ANIMALS if name in row.question)
        assert len(offered) == 4
        places.append([name for _, name in offered].index(noun))
    assert all(places.count(place) > 20 for place in range(4))


def test_rows_of_a_picture_are_the_same_every_time_and_end_in_a_stop():
    picture, phrases = drawing(3), Phrases([drawing(n) for n in range(50)])
    first, second = (make_rows(picture, paint(3), phrases, "train") for _ in range(2))
    assert first == second
    assert {"name", "describe", "category", "yes", "no", "choice"} <= {row.task for row in first}
    assert all(row.answer.endswith(".") and row.answer[0].isupper() for row in first)
    held_out = make_rows(picture, paint(3), phrases, "test")
    assert [row.question for row in held_out if row.task == "name"] == ["What is this?"]


@pytest.mark.parametrize(
    ("rgb", "name"),
    [((220, 20, 20), "red"), ((30, 160, 60), "green"), ((40, 80, 220), "blue"), ((250, 220, 40), "yellow")]
    + [
        ((110, 60, 20), "brown"),
        ((10, 10, 10), "black"),
        ((250, 250, 250), "white"),
        ((130, 130, 130), "gray"),
    ],
)
def test_the_main_colour_is_that_of_the_opaque_pixels(rgb, name):
    image = Image.new("RGBA", (64, 64), (255, 0, 255, 0))
    image.paste((*rgb, 255), (16, 16, 48, 48))
    assert main_colour(image) == name


def test_a_picture_of_many_colours_has_no_main_colour():
    stripes = Image.new("RGBA", (64, 64), "red")
    for x in range(0, 64, 2):
        stripes.paste("blue", (x, 0, x + 1, 64))
    assert main_colour(stripes) == "" and main_colour(paint(1)) == ""


# Splits


def test_splits_do_not_depend_on_the_order_of_the_pictures(small_test, listed):
    pictures = listed["tuxpaint"] + listed["emoji-noto"]
    assigned = splits.assign_splits(pictures)
    assert assigned == splits.assign_splits(pictures[::-1])
    assert sorted(assigned[p.path] for p in listed["tuxpaint"]).count("test") == 3
    assert splits.hash_fraction("salted", "hash") == pytest.approx(0.0933, abs=1e-4)


def test_only_plain_photographs_are_tested_and_held_out_styles_are_never_trained_on(small_test):
    assert splits.is_plain("a red kangaroo") and splits.is_plain("a pair of binoculars")
    assert not splits.is_plain("a walnut in its shell") and not splits.is_plain("two wild boars")
    pictures = [photograph(n, path=f"tuxpaint/military/{n}.png") for n in range(9)]
    pictures += [drawing(n, style="noto-v1", path=f"emoji/noto-v1/{n}") for n in range(9)]
    assert set(splits.assign_splits(pictures).values()) == {"train", "test-style"}


def test_held_out_things_are_shown_by_no_training_picture_of_any_source(monkeypatch):
    monkeypatch.setattr(splits, "TEST_PHOTOGRAPHS", 1)
    monkeypatch.setattr(splits, "VALIDATION_PHOTOGRAPHS", 0)
    monkeypatch.setattr(splits, "CONCEPT_SHARE", 0.4)
    nouns = [
        "bunny",
        "hare",
        "rabbit",
        "hen",
        "chicken",
        "zebra",
        "lion",
        "tiger",
        "camel",
        "horse",
        "koala",
        "badger",
    ]
    pictures = [
        drawing(n, phrase=with_article(noun), path=f"emoji/noto/{noun}") for n, noun in enumerate(nouns)
    ]
    pictures += [
        drawing(n, phrase=with_article(noun), path=f"openclipart/{noun}") for n, noun in enumerate(nouns)
    ]
    pictures += [
        drawing(0, phrase="a tiger", path="emoji/noto-v1/tiger", style="noto-v1"),
        photograph(1),
    ]  # a lion
    assigned = splits.assign_splits(pictures)
    unseen, seen = (
        {
            noun
            for p in pictures
            if (assigned[p.path] == "test-concept") is held_out
            for noun in accepted_nouns(p.phrase)
        }
        for held_out in (True, False)
    )
    assert unseen and seen and not unseen & seen
    assert len({"bunny", "hare", "rabbit"} & unseen) in (0, 3) and len({"hen", "chicken"} & unseen) in (0, 2)
    assert "lion" in seen  # the test photograph shows one: it stays a known thing


def test_a_drawing_is_tested_only_where_training_names_its_thing(monkeypatch):
    monkeypatch.setattr(splits, "DRAWING_TEST_SHARE", 1.0)
    monkeypatch.setattr(splits, "CONCEPT_SHARE", 0.0)
    pictures = [drawing(n, path=f"emoji/noto/{n}") for n in range(30)]  # 12 animals, two or three times each
    assigned = splits.assign_splits(pictures)
    taught = {p.phrase for p in pictures if assigned[p.path] == "train"}
    tested = {p.phrase for p in pictures if assigned[p.path] == "test"}
    assert tested and tested <= taught


def test_near_duplicates_are_recognised_mirrored_smaller_and_shifted():
    kept_out = KeptOut({"a": likeness(flatten_on_white(paint(1)))})
    shifted = Image.new("RGBA", (150, 120), (0, 0, 0, 0))
    shifted.paste(paint(1), (40, 10))
    for twin in (paint(1), mirrored(1), paint(1).resize((70, 70)), shifted):
        assert kept_out.find_twin(flatten_on_white(twin)) == "a"
    assert not any(kept_out.find_twin(flatten_on_white(paint(n))) for n in range(2, 40))


# Files


def test_no_held_out_picture_nor_its_likeness_is_trained_on(small_test, listed, tmp_path):
    tested = [p for p in listed["tuxpaint"] if splits.assign_splits(listed["tuxpaint"])[p.path] == "test"]
    seeds = [int(Path(picture.path).stem) for picture in tested]
    listed["emoji-noto"] += [
        drawing(900 + seed, path=f"emoji/noto/twin-{seed}", load=partial(mirrored, seed)) for seed in seeds
    ]
    prepare.write_data(listed, tmp_path)
    rows = read_rows(tmp_path)
    held_out = {row["image_id"] for row in rows if row["split"] != "train"}
    assert held_out and not held_out & {row["image_id"] for row in rows if row["split"] == "train"}
    assert not any("twin" in row["image"]["path"] for row in rows)
    card = card_of(tmp_path)
    assert {path for path in card["dropped"] if "twin" in path} == {
        f"emoji/noto/twin-{seed}" for seed in seeds
    }
    assert card["test_photographs"]["count"] == 3 and "Data card" in to_markdown(card)


def test_a_held_out_thing_is_chosen_among_others_held_out(small_test, listed, tmp_path, monkeypatch):
    monkeypatch.setattr(splits, "CONCEPT_SHARE", 0.6)
    prepare.write_data(listed, tmp_path)
    rows = read_rows(tmp_path)
    held_out = {row["concept"] for row in rows if row["split"] == "test-concept"}
    assert len(held_out) >= 4 and held_out < set(ANIMALS)
    choices = [row["question"] for row in rows if (row["split"], row["task"]) == ("test-concept", "choice")]
    offered = [{name for name in ANIMALS if name in question} for question in choices]
    assert offered and all(len(names) == 4 and names <= held_out for names in offered)


def test_rows_of_one_picture_are_adjacent_and_images_are_rgb(small_test, listed, tmp_path):
    prepare.write_data(listed, tmp_path)
    paths = [row["image"]["path"] for row in read_rows(tmp_path)]
    changes = sum(before != after for before, after in zip(paths, paths[1:], strict=False))
    assert changes == len(set(paths)) - 1
    table = pq.read_table(tmp_path / "tuxpaint.parquet")
    assert table.schema.names == parquet_file.SCHEMA.names
    with Image.open(io.BytesIO(table["image"][0].as_py()["bytes"])) as image:
        assert (image.size, image.mode) == ((96, 96), "RGB")


def test_a_killed_run_is_finished_by_the_next_and_whole_files_are_kept(small_test, listed, tmp_path):
    prepare.write_data(listed, tmp_path / "unbroken")

    def fail() -> Image.Image:
        raise KeyboardInterrupt

    killed = tmp_path / "killed"
    broken = {
        **listed,
        "emoji-noto": [*listed["emoji-noto"][:-1], replace(listed["emoji-noto"][-1], load=fail)],
    }
    with pytest.raises(KeyboardInterrupt):
        prepare.write_data(broken, killed)
    assert [file.name for file in killed.iterdir()] == ["tuxpaint.parquet"]  # and no part of the other
    (killed / "emoji-noto.parquet.partial").write_bytes(b"half a file")
    written = (killed / "tuxpaint.parquet").stat().st_mtime_ns
    prepare.write_data(listed, killed)
    assert (killed / "tuxpaint.parquet").stat().st_mtime_ns == written
    assert card_of(killed) == card_of(tmp_path / "unbroken")
    assert not list(killed.glob("*.partial"))


def test_the_fingerprint_is_the_same_for_the_same_data_and_changes_with_it(small_test, listed, tmp_path):
    for name in ("one", "two"):
        prepare.write_data(listed, tmp_path / name)
    assert card_of(tmp_path / "one")["fingerprint"] == card_of(tmp_path / "two")["fingerprint"]
    listed["emoji-noto"] = listed["emoji-noto"][1:]
    prepare.write_data(listed, tmp_path / "three")
    assert card_of(tmp_path / "three")["fingerprint"] != card_of(tmp_path / "one")["fingerprint"]


def test_a_file_of_other_pictures_or_texts_is_not_taken_for_todays(small_test, listed, tmp_path, capsys):
    prepare.write_data(listed, tmp_path)
    content = {file: file.read_bytes() for file in tmp_path.iterdir()}
    first = listed["emoji-noto"][0]
    for other in ([first], [replace(first, phrase="a yak"), *listed["emoji-noto"][1:]]):
        with pytest.raises(
            packages.UserError, match=r"emoji-noto\.parquet: made of other pictures.*Delete.*--output"
        ):
            prepare.write_data(listed | {"emoji-noto": other}, tmp_path)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == content
    prepare.write_data(listed, tmp_path)
    assert "held out" not in capsys.readouterr().out


def test_a_missing_client_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(packages.UserError, match="npm.*Install Node"):
        packages.fetch("@twemoji/svg", tmp_path)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "WARNING: Retrying (Retry(total=0, status=None)) after connection broken by 'NewConnectionError'\n"
            "ERROR: No matching distribution found for easy-vqa==1.0",
            r"^easy-vqa could not be fetched: PyPI cannot be reached\. Check the network, and give .*--only-photos",
        ),
        (
            "ERROR: No matching distribution found for x.\n",
            r"fetched: No matching distribution found for x\. Check",
        ),
        ("", "fetched: no file came. Check"),
    ],
)
def test_a_package_that_cannot_be_fetched_is_one_sentence(tmp_path, monkeypatch, said, told):
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr=said)
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(packages.UserError, match=told) as error:
        packages.fetch("easy-vqa", tmp_path)
    assert "\n" not in str(error.value) and "ensurepip" not in str(error.value)


def test_an_altered_package_is_refused_and_a_whole_one_is_extracted_once(tmp_path, monkeypatch):
    (tmp_path / "twemoji-svg-15.0.0.tgz").write_bytes(b"not the package")
    with pytest.raises(packages.UserError, match="Delete it"):
        packages.fetch("@twemoji/svg", tmp_path)
    wheel = tmp_path / "easy_vqa-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("easy_vqa/data/answers.txt", "circle")
    monkeypatch.setitem(packages.PACKAGES, "easy-vqa", packages.PACKAGES["easy-vqa"]._replace(sha256=""))
    folder = packages.fetch("easy-vqa", tmp_path)
    wheel.unlink()
    assert (packages.fetch("easy-vqa", tmp_path) / "easy_vqa/data/answers.txt").read_text() == "circle"
    assert folder.parent.name == "extracted"


def test_an_archive_that_cannot_be_unpacked_is_one_sentence(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 2, stdout="", stderr="dpkg-deb: error: unexpected end of file\n")
    monkeypatch.setattr(packages.shutil, "which", lambda _: "dpkg-deb")
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(packages.UserError, match=r"a\.deb is damaged \(.*unexpected end.*Delete it and"):
        packages.extract(tmp_path / "a.deb", tmp_path)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_another_version_of_a_debian_package_is_told_and_stands_in_the_card(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(packages.VERSIONS, "pysiogame", "")

    def fetched(downloads: Path, version: str) -> str:
        root = downloads / "root"
        (root / "DEBIAN").mkdir(parents=True)
        fields = {
            "Package": "pysiogame",
            "Version": version,
            "Architecture": "all",
            "Maintainer": "a",
            "Description": "a",
        }
        (root / "DEBIAN" / "control").write_text("".join(f"{key}: {text}\n" for key, text in fields.items()))
        command = ["dpkg-deb", "--build", str(root), str(downloads / "pysiogame_1_all.deb")]
        subprocess.run(command, check=True, capture_output=True)
        packages.fetch("pysiogame", downloads)
        return capsys.readouterr().out

    def in_card() -> str:
        return prepare.write_card(tmp_path, {"art4apps": ("pysiogame",)})["licences"]["art4apps"]["pysiogame"]

    pq.write_table(pa.Table.from_pylist([], parquet_file.SCHEMA), tmp_path / "art4apps.parquet")
    pinned = packages.PACKAGES["pysiogame"]
    assert not fetched(tmp_path / "pinned", pinned.version)
    assert in_card() == f"{pinned.version}, {pinned.licence}"
    told = fetched(tmp_path / "other", "2:4.30-1")
    assert "pysiogame is here in version 2:4.30-1" in told and pinned.version in told
    assert in_card() == f"2:4.30-1, {pinned.licence}"
    del packages.VERSIONS["pysiogame"]
    assert in_card() == f"2:4.30-1, {pinned.licence}"  # a run that fetches nothing
    (tmp_path / "other" / "pysiogame_1_all.deb").unlink()
    packages.fetch("pysiogame", tmp_path / "other")
    assert capsys.readouterr().out == told


def test_held_out_pictures_of_other_makings_are_known_by_what_they_show(tmp_path: Path) -> None:
    """Without a path, with the path of another, and as bare bytes."""
    shown = [encode(flatten_on_white(paint(number))) for number in range(4)]
    images: list[list[object]] = [
        [{"bytes": shown[0], "path": ""}, {"bytes": shown[1], "path": ""}, {"bytes": shown[1], "path": ""}],
        [{"bytes": shown[2], "path": "1.jpg"}],
        [{"bytes": shown[3], "path": "1.jpg"}],
    ]
    files = [tmp_path / f"{number}.parquet" for number in range(3)]
    for file, some in zip(files, images, strict=True):
        rows = [{"image": image, "kind": "photo", "split": "validation"} for image in some]
        pq.write_table(pa.Table.from_pylist(rows), file)
    rows = [{"image": shown[0], "kind": "photo", "split": "validation"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "bare.parquet")
    found = held_out_likenesses([*files, tmp_path / "bare.parquet"])
    assert len(found) == 4
    kept_out = KeptOut(found)
    assert all(kept_out.find_twin(flatten_on_white(paint(number))) for number in range(4))
