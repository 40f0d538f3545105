"""Folders of photographs with an index, made here: reading, bad input, splits, questions, balance, conversations."""

import io
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from training import prepare
from training.data import parquet_file, splits
from training.data.held_out import KeptOut
from training.picture import Row
from training.sources import (
    boxes,
    captions,
    follow_ups,
    photographs,
    places,
    presence,
    questions_asked,
    regions,
)
from training.sources.balance import Candidate, cap, even_out
from training.sources.index_lines import Box, Known, Region
from training.sources.nouns import everyday, noun_phrase, several
from vlm.errors import UserError


def photograph(file: Path, seed: int, size: tuple[int, int] = (96, 64)) -> None:
    """A JPEG unlike every other seed's."""
    file.parent.mkdir(parents=True, exist_ok=True)
    cells = np.random.default_rng(seed).integers(0, 220, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(cells).resize(size, Image.Resampling.NEAREST).save(file, quality=95)


def make_set(folder: Path, lines: list[dict | str]) -> Path:
    """An index of these lines, with a picture for each that names one."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, line in enumerate(lines):
        if isinstance(line, dict) and str(line.get("image", "")).startswith("images/"):
            photograph(folder / line["image"], seed)
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "index.jsonl").write_text("\n".join(texts) + "\n")
    return folder


def box(name: str, x: float = 0.1, y: float = 0.1, width: float = 0.3, height: float = 0.3) -> dict:
    return {"name": name, "box": [x, y, width, height]}


def captioned(number: int) -> dict:
    texts = ["A dog is running in the grass .", "a brown dog runs", "The dog runs across a green field ."]
    return {"image": f"images/{number}.jpg", "captions": texts}


def boxed(number: int, *found: Box) -> Known:
    return Known(f"{number}.jpg", boxes=found)


def rows_of(pictures) -> list[Row]:
    return [row for picture in pictures for row in picture.turns]


# Reading


def test_every_subfolder_with_an_index_is_a_source_of_its_name(tmp_path):
    make_set(tmp_path / "holiday", [captioned(n) for n in range(3)])
    make_set(tmp_path / "garden", [{"image": "images/1.jpg", "label": "garden_gnome"}])
    found = photographs.read_folders(tmp_path)
    assert {name: len(pictures) for name, pictures in found.items()} == {"garden": 1, "holiday": 3}
    assert found["garden"][0].phrase == "a garden gnome" and found["garden"][0].kind == "photo"


def test_bad_lines_are_told_with_file_and_line_and_the_others_are_used(tmp_path, capsys):
    lines = [
        captioned(1),
        "{not json",
        {"image": "missing.jpg", "captions": ["A dog runs."]},
        {"image": "../outside.jpg", "captions": ["A dog runs."]},
        {"captions": ["A dog runs over the grass."]},
        {"image": "images/2.jpg"},
        captioned(1),
        {"image": "images/../../outside.jpg", "captions": ["A dog runs."]},
    ]
    pictures = photographs.read_folder(make_set(tmp_path / "mine", lines))
    assert [picture.path for picture in pictures] == ["mine/images/1.jpg"]
    told = capsys.readouterr().out
    for number, words in [
        (2, "not JSON"),
        (3, "no picture missing.jpg"),
        (4, "leads out of the folder"),
        (5, 'no "image"'),
        (6, "nothing is known"),
    ]:
        assert f"index.jsonl, line {number}: " in told
        assert words in told
    assert "1 pictures are used, 7 faults were found" in told


@pytest.mark.parametrize(
    "wrong",
    [
        [0.1, 0.1, 0.3],
        [0.1, 0.1, 0.0, 0.3],
        [0.8, 0.1, 0.5, 0.3],
        [10, 10, 50, 50],
        "box",
        [True, 0, 1, 1],
        None,
    ],
)
def test_wrong_boxes_are_left_out_together_and_captions_are_kept(tmp_path, capsys, wrong):
    line = captioned(1) | {"boxes": [box("dog"), {"name": "cat", "box": wrong}]}
    (picture,) = photographs.read_folder(make_set(tmp_path / "mine", [line]))
    assert "line 1" in (told := capsys.readouterr().out) and '"boxes" is left out' in told
    assert {row.task for row in picture.turns} <= {"describe", "action", "yes", "no", "chat"}


def test_a_broken_picture_is_skipped_and_told(tmp_path, capsys):
    folder = make_set(tmp_path / "mine", [captioned(1), captioned(2)])
    (folder / "images/2.jpg").write_bytes(b"no picture")
    assert len(photographs.read_folder(folder)) == 1
    assert "the picture images/2.jpg cannot be read" in capsys.readouterr().out


def test_a_picture_that_is_cut_off_is_left_out_of_the_file_and_noted(tmp_path):
    folder = make_set(tmp_path / "photos/mine", [captioned(n) for n in range(12)])
    whole = (folder / "images/3.jpg").read_bytes()
    (folder / "images/3.jpg").write_bytes(whole[: len(whole) // 2])
    prepare.write_data({}, tmp_path / "out", photographs.read_folders(tmp_path / "photos"))
    paths = set(
        pq.read_table(tmp_path / "out/mine.parquet")["image"].combine_chunks().field("path").to_pylist()
    )
    assert len(paths) == 11 and "mine/images/3.jpg" not in paths
    assert "cut off" in prepare.read_dropped(tmp_path / "out", "mine")["mine/images/3.jpg"]


def test_folders_without_a_usable_index_and_taken_names_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match="holds an index.jsonl"):
        photographs.read_folders(tmp_path)
    make_set(tmp_path / "tuxpaint", ["{"])
    with pytest.raises(UserError, match="taken by another source"):
        photographs.read_folders(tmp_path, taken=("tuxpaint",))
    with pytest.raises(UserError, match="no line that can be used"):
        photographs.read_folders(tmp_path)


def test_subfolders_without_an_index_are_told_with_what_is_nearly_one(tmp_path, capsys):
    make_set(tmp_path / "mine", [captioned(1)])
    for name in ("a/Index.jsonl", "b/zebra.jsonl", "b/index.json", "c/notes.txt", ".cache/index.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert set(photographs.read_folders(tmp_path)) == {"mine"}
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" holds")[0] for line in lines] == [str(tmp_path / name) for name in "abc"]
    assert "Its Index.jsonl must be called index.jsonl" in lines[0] and "Its index.json must" in lines[1]
    assert lines[2].endswith("holds no index.jsonl and is left out.")
    with pytest.raises(UserError, match="holds one itself: name the folder above it"):
        photographs.read_folders(tmp_path / "mine")
    with pytest.raises(UserError, match="There is no folder"):
        photographs.read_folders(tmp_path / "gone")


def test_all_wrong_lines_are_written_beside_the_data(tmp_path, capsys):
    make_set(tmp_path / "photos/mine", [captioned(1), *["{"] * 9])
    photographs.read_folders(tmp_path / "photos", out=tmp_path / "out")
    assert (
        f"9 faults were found. All of them are in {tmp_path}/out/mine-skipped.txt." in capsys.readouterr().out
    )
    told = (tmp_path / "out/mine-skipped.txt").read_text().splitlines()
    assert len(told) == 9 and "index.jsonl, line 10: this is not JSON" in told[-1]
    make_set(tmp_path / "photos/mine", [captioned(1)])
    photographs.read_folders(tmp_path / "photos", out=tmp_path / "out")
    assert not (tmp_path / "out/mine-skipped.txt").exists()


def test_photographs_alone_are_prepared_without_fetching_anything(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare, "fetch", None)
    make_set(tmp_path / "photos/mine", [captioned(n) for n in range(12)])
    words = ["prepare", "--photos", f"{tmp_path}/photos", "--output", f"{tmp_path}/out", "--only-photos"]
    monkeypatch.setattr(sys, "argv", words)
    prepare.main()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "card.json",
        "card.md",
        "mine.parquet",
    ]
    made = (tmp_path / "out/mine.parquet").stat().st_mtime_ns
    make_set(tmp_path / "photos/more", [captioned(n + 20) for n in range(12)])
    for seed in range(12):
        photograph(tmp_path / f"photos/more/images/{seed + 20}.jpg", seed)  # the pictures of mine again
    prepare.main()
    assert (tmp_path / "out/mine.parquet").stat().st_mtime_ns == made
    held_out = {
        row["image_id"]
        for row in pq.read_table(tmp_path / "out/mine.parquet").to_pylist()
        if row["split"] != "train"
    }
    trained = {
        row["image_id"]
        for row in pq.read_table(tmp_path / "out/more.parquet").to_pylist()
        if row["split"] == "train"
    }
    assert held_out and trained and not held_out & trained
    monkeypatch.setattr(sys, "argv", ["prepare", "--only-photos"])
    with pytest.raises(SystemExit):
        prepare.main()
    assert "--only-photos needs --photos" in capsys.readouterr().err


def test_the_card_keeps_sets_whose_files_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "SOURCES", {"drawings": ((), list)})
    make_set(tmp_path / "photos/mine", [captioned(n) for n in range(12)])
    known = prepare.prepare_photos(tmp_path / "out", tmp_path / "photos")
    assert set(known["licences"]) == {"mine"}
    card = prepare.prepare(tmp_path / "out", tmp_path / "downloads")
    assert set(card["licences"]) == {"drawings", "composited", "mine"}
    assert known["counts"].items() <= card["counts"].items()
    (tmp_path / "out/mine.parquet").unlink()
    card = prepare.prepare(tmp_path / "out", tmp_path / "downloads")
    assert set(card["licences"]) == {"drawings", "composited"}


def test_small_jpegs_are_stored_as_they_are_and_others_made_small(tmp_path):
    photograph(tmp_path / "small.jpg", 1)
    photograph(tmp_path / "large.jpg", 2, (640, 400))
    photograph(tmp_path / "other.png", 3)

    def stored(name):
        return photographs.stored(tmp_path / name, photographs.load(tmp_path / name))

    assert stored("small.jpg") == (tmp_path / "small.jpg").read_bytes()
    for name, size in (("large.jpg", (320, 200)), ("other.png", (96, 64))):
        with Image.open(io.BytesIO(stored(name))) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", size)


def test_a_photograph_is_decoded_once_for_its_rows(tmp_path, monkeypatch):
    make_set(tmp_path, [captioned(n) for n in range(2)])
    photograph(tmp_path / "images/0.jpg", 0, (640, 400))
    (picture, _) = photographs.read_folder(tmp_path)
    expected, opened = picture.stored(picture.load()), []
    open_image = photographs.open_image
    monkeypatch.setattr(photographs, "open_image", lambda file: opened.append(file) or open_image(file))
    rows = list(parquet_file.table_rows(picture, "train", {"train": None}, KeptOut({}), set(), {}))
    assert len(opened) == 1 and {row["image"]["bytes"] for row in rows} == {expected}


# Splits


def test_a_tenth_of_each_label_is_held_out_and_stays_so_in_any_order():
    known = [Known(f"{label}-{n}.jpg", label=label) for label in ("cup", "ant") for n in range(30)]
    split = photographs.split_pictures("mine", known)
    held_out = Counter(name.split("-")[0] for name in split if split[name] == "validation")
    assert held_out == {"cup": 3, "ant": 3}
    assert photographs.split_pictures("mine", known[::-1]) == split
    assert set(photographs.split_pictures("imagenet-sample", known).values()) == {"train"}


@pytest.mark.parametrize(
    ("known", "wanted"),
    [
        ([Known(f"{n}.jpg", label=f"label {n // 5}") for n in range(200)], 20),
        ([Known(f"{n}.jpg", label=f"label {n // 5 if n < 194 else 'of six'}") for n in range(200)], 20),
        ([boxed(n, *(Box(f"thing {n} {k}", 0.1, 0.1, 0.3, 0.3) for k in range(3))) for n in range(30)], 3),
        ([Known(f"{n}.jpg", captions=("A dog runs.",)) for n in range(2)], 1),
        ([Known("0.jpg", captions=("A dog runs.",))], 0),
        ([Known(f"label {n // 3}/{n % 3}.jpg", label=f"label {n // 3}") for n in range(120)], 12),
    ],
)
def test_where_labels_have_too_few_pictures_a_tenth_of_the_set_is_held_out(known, wanted):
    split = photographs.split_pictures("mine", known)
    assert list(split.values()).count("validation") == wanted
    assert photographs.split_pictures("mine", known[::-1]) == split


def test_neighbouring_frames_of_one_room_are_held_out_together():
    known = [Known(f"images/image{n}.jpg", questions=(("what is it?", "a"),)) for n in range(200)]
    split = photographs.split_pictures("daquar", known)
    rooms = [{split[f"images/image{n}.jpg"] for n in range(start, start + 10)} for start in range(0, 200, 10)]
    assert all(len(found) == 1 for found in rooms) and rooms.count({"validation"}) == 2


def test_nothing_in_training_looks_like_a_held_out_photograph(tmp_path):
    folder = make_set(tmp_path / "photos/mine", [captioned(n) for n in range(20)])
    known, _ = photographs.read_index(folder / "index.jsonl")
    split = photographs.split_pictures("mine", known)
    held_out = next(name for name in split if split[name] == "validation")
    trained = next(name for name in split if split[name] == "train")
    with Image.open(folder / held_out) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / trained, quality=80)
    prepare.write_data({}, tmp_path / "out", photographs.read_folders(tmp_path / "photos"))
    assert prepare.read_dropped(tmp_path / "out", "mine") == {
        f"mine/{trained}": f"looks like mine/{held_out}"
    }


def test_nothing_in_training_looks_like_what_an_earlier_call_held_out(tmp_path):
    make_set(tmp_path / "photos/mine", [captioned(n) for n in range(20)])
    (found,) = photographs.read_folders(tmp_path / "photos").values()
    prepare.prepare_photos(tmp_path / "out", tmp_path / "photos")
    held_out = next(picture for picture in found if picture.split == "validation")
    twin = replace(held_out, path="package/twin", split="train")
    prepare.write_data({}, tmp_path / "out", {"package": [twin]})
    assert prepare.read_dropped(tmp_path / "out", "package") == {
        "package/twin": f"looks like {held_out.path}"
    }


def test_a_photograph_that_was_replaced_under_its_name_is_noticed(tmp_path):
    make_set(tmp_path / "photos/mine", [captioned(n) for n in range(12)])
    prepare.write_data({}, tmp_path / "out", photographs.read_folders(tmp_path / "photos"))
    file = tmp_path / "out/mine.parquet"
    known = parquet_file.origin_of(file)
    prepare.write_data({}, tmp_path / "out", photographs.read_folders(tmp_path / "photos"))
    photograph(tmp_path / "photos/mine/images/3.jpg", 99)
    replaced = photographs.read_folders(tmp_path / "photos")
    with pytest.raises(UserError, match=r"mine\.parquet: made of other pictures"):
        prepare.write_data({}, tmp_path / "out", replaced)
    rows = pq.read_table(file)
    pq.write_table(rows.replace_schema_metadata(known | {"contents": "", "dropped": "{}"}), file)
    prepare.write_data({}, tmp_path / "out", replaced)  # a file from before does not say


# Names


def test_only_the_classes_of_the_sets_that_they_are_of_are_renamed_or_dropped():
    assert [everyday(name, "coco-train2017") for name in ("mouse", "tank")] == ["computer mouse", ""]
    assert everyday("window_pane", "ade20k") == "window pane" and everyday("windowpane", "ade20k") == "window"
    assert [everyday(name, "mine") for name in ("mouse", "tank", "fish_tank")] == [
        "mouse",
        "tank",
        "fish tank",
    ]
    rows = boxes.ask(
        "mine", [boxed(0, Box("mouse", 0.1, 0.1, 0.2, 0.2), Box("tank", 0.5, 0.5, 0.2, 0.2))], "train"
    )
    assert rows["0.jpg"][0].objects == ("mouse", "tank")
    rows = boxes.ask("coco 0", [boxed(0, Box("mouse", 0.1, 0.1, 0.2, 0.2))], "train")
    assert rows["0.jpg"][0].objects == ("computer mouse",)


# Captions


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("a dog , running on the grass .", "A dog, running on the grass."),
        ("  Two men stand outside   ", "Two men stand outside."),
        ("A man 's dog jumps .", "A man's dog jumps."),
        ("The Wine Shop", ""),
        ("A dog runs and jumps over a", ""),
        ("A dog dog runs outside .", ""),
        ("A man <unk> rides a bike .", ""),
    ],
)
def test_captions_are_cleaned_and_broken_ones_dropped(caption, cleaned):
    assert captions.clean(caption) == cleaned


def test_descriptions_carry_all_captions_as_references(tmp_path):
    pictures = photographs.read_folder(make_set(tmp_path / "flickr8k", [captioned(n) for n in range(20)]))
    references = ("A dog is running in the grass.", "A brown dog runs.", "The dog runs across a green field.")
    for picture in pictures:
        described = [row for row in picture.turns if row.task == "describe"]
        assert any(row.question == "Describe the picture." for row in described)
        assert all(row.references == references and row.answer in references for row in described)
    asked = {row.question: row.answer for row in rows_of(pictures) if "the dog" in row.question}
    assert "The dog is running in the grass." in asked.values()


def test_captions_of_ones_own_are_kept_as_they_are_written(tmp_path, capsys):
    texts = [
        "Un chien brun court sur l\u2019herbe \u00e0 No\u00ebl.",
        "our dog Rex",
        "#1 of the litter [2019]",
        "word " * 41,
    ]
    (picture,) = photographs.read_folder(
        make_set(tmp_path / "mine", [{"image": "images/1.jpg", "captions": texts}])
    )
    long = "Word" + " word" * 40 + "."
    assert picture.turns[0].references == (texts[0], "Our dog Rex.", "#1 of the litter [2019].", long)
    assert capsys.readouterr().out == ""


def test_what_is_not_used_of_an_index_is_told(tmp_path, capsys):
    lines = [
        captioned(0),
        {"image": "images/1.jpg", "captions": ["The Wine Shop"]},
        {"image": "images/2.jpg", "boxes": [box("dog", width=0.01, height=0.01)]},
    ]
    (picture,) = photographs.read_folder(make_set(tmp_path / "flickr8k", lines), tmp_path / "out")
    assert picture.path == "flickr8k/images/0.jpg"
    told = (tmp_path / "out/flickr8k-skipped.txt").read_text().splitlines()
    assert ["'The Wine Shop'" in line for line in told] == [True, False, False]
    assert [line.split(": ")[1] for line in told] == [f"images/{n}.jpg" for n in (1, 1, 2)]
    assert "1 pictures are used, 3 faults were found" in capsys.readouterr().out


def test_captions_deny_only_what_none_of_them_may_mean():
    sure, maybe = captions.mentioned(["A girl rides her bike.", "A girl on a bike.", "A child cycling."])
    assert sure == {"person"} and {"bicycle", "motorcycle"} <= maybe and "dog" not in maybe


def test_nothing_is_denied_of_a_picture_whose_captions_are_in_another_language():
    told = [Known(f"{n}.jpg", captions=("A dog runs on the grass.", "A brown dog runs.")) for n in range(9)]
    told.append(Known("car.jpg", captions=("A red car stands on the street.",)))
    rows = captions.ask("mine", [*told, Known("rex.jpg", captions=("Rex schläft auf der Wiese.",))], "train")
    assert "no" in {row.task for row in rows["car.jpg"]}
    assert [row.task for row in rows["rex.jpg"]] == ["describe"]


# Boxes


def test_boxes_are_counted_exactly_and_nothing_is_asked_of_pictures_without(tmp_path):
    dogs = [Box("dog", 0.1 * n, 0.1, 0.1, 0.3) for n in range(4)]
    known = [boxed(n, *dogs[: n % 4 + 1], Box("cat", 0.6, 0.5, 0.3, 0.3)) for n in range(40)]
    rows = boxes.ask("mine", [*known, Known("bare.jpg", captions=("A dog runs outside.",))], "train")
    assert not rows.get("bare.jpg")
    for number in range(40):
        said = [row.answer for row in rows[f"{number}.jpg"] if row.task == "count" and "dogs" in row.question]
        assert said in ([], [["One.", "Two.", "Three.", "Four."][number % 4]])
        assert all(row.objects == ("cat", "dog") for row in rows[f"{number}.jpg"])
    counts = Counter(row.answer for found in rows.values() for row in found if row.task == "count")
    assert max(counts.values()) <= 0.5 * sum(counts.values()) and counts["Four."] == 10


def test_small_boxes_are_neither_asked_about_nor_denied():
    known = [boxed(n, Box("dog", 0.1, 0.1, 0.4, 0.4), Box("cup", 0.5, 0.5, 0.02, 0.02)) for n in range(10)]
    known += [boxed(n, Box("cup", 0.1, 0.1, 0.4, 0.4)) for n in range(10, 20)]
    rows = boxes.ask("mine", known, "train")
    asked = [
        row.question for number in range(10) for row in rows[f"{number}.jpg"] if row.task in ("yes", "no")
    ]
    assert asked and not any("cup" in question for question in asked)


def test_sides_are_asked_only_where_clear_and_as_often_left_as_right():
    left, right, middle = (Box("cup", x, 0.4, 0.2, 0.2) for x in (0.1, 0.7, 0.4))
    known = [boxed(n, box) for n, box in enumerate([left] * 9 + [right] * 4 + [middle] * 5)]
    rows = boxes.ask("mine", known, "train")
    said = [row.accepted[0] for found in rows.values() for row in found if row.task == "where"]
    assert said.count("left") == said.count("right") == 4
    assert not any(row.task == "where" for n in range(13, 18) for row in rows[f"{n}.jpg"])


def test_what_stands_beside_a_thing_is_named():
    known = [boxed(n, Box("dog", 0.1, 0.3, 0.2, 0.3), Box("chair", 0.6, 0.3, 0.2, 0.4)) for n in range(20)]
    rows = [
        row for found in boxes.ask("mine", known, "train").values() for row in found if row.task == "which"
    ]
    answers = {(("left" in row.question), row.answer) for row in rows if "of the" in row.question}
    assert answers == {(True, "A dog."), (False, "A chair.")}


# Classes


def test_yes_and_no_are_even_for_each_noun_and_no_is_hard():
    kitchens = {f"kitchen {n}": {"stove", "sink"} | ({"kettle"} if n % 2 else set()) for n in range(20)}
    streets = {f"street {n}": {"car", "road"} for n in range(20)}
    rows = presence.ask_balanced(kitchens | streets, "seed", most=2)
    for noun in ("stove", "sink", "kettle", "car", "road"):
        asked = [row.task for found in rows.values() for row in found if f" {noun}" in row.question]
        assert asked.count("yes") == asked.count("no") > 0
    refused = [
        name for name, found in rows.items() for row in found if row.task == "no" and "kettle" in row.question
    ]
    assert all(name.startswith("kitchen") for name in refused)  # where kettles stand, not on a street


def test_what_a_thing_may_be_taken_for_is_never_denied():
    known = [Known(f"{n}.jpg", regions=(Region("sofa", 0.3, 0.5, 0.5),)) for n in range(10)]
    known += [Known(f"{n}.jpg", regions=(Region("armchair", 0.3, 0.5, 0.5),)) for n in range(10, 20)]
    rows = regions.ask("mine", known, "train")
    assert not any(row.task == "no" for found in rows.values() for row in found)


def test_places_follow_from_what_they_hold():
    assert places.place_of({"wall": 0.4, "bed": 0.3, "floor": 0.2}) == "a bedroom"
    assert places.place_of({"wall": 0.5, "toilet": 0.1, "sink": 0.1}) == "a bathroom"
    assert places.place_of({"road": 0.3, "building": 0.3, "car": 0.1, "sky": 0.2}) == "a street"
    assert places.place_of({"wall": 0.6, "person": 0.2}) == ""
    assert places.is_indoors({"ceiling": 0.2, "wall": 0.5, "floor": 0.2}) is True
    assert places.is_indoors({"road": 0.3, "sky": 0.4, "tree": 0.2}) is False
    assert places.is_indoors({"wall": 0.5, "person": 0.3}) is None


def test_no_answer_can_be_guessed_from_the_question():
    row = Row("where", "?", "Left.")
    found = [Candidate(f"{n}.jpg", "cup", "left" if n < 9 else "right", row) for n in range(12)]
    found += [Candidate("13.jpg", "lamp", "left", row)]
    assert Counter((c.question, c.answer) for c in even_out(found, "")) == {
        ("cup", "left"): 3,
        ("cup", "right"): 3,
    }
    many = [Candidate(f"{n}", "", answer, row) for answer in "aaaaaaaabbbccc" for n in range(3)]
    counts = Counter(c.answer for c in cap(many, 0.4, ""))
    assert counts["b"] == counts["c"] == 9 and counts["a"] <= 12


@pytest.mark.parametrize(
    ("noun", "phrase"),
    [
        ("scissors", "a pair of scissors"),
        ("grass", "grass"),
        ("sky", "the sky"),
        ("stairs", "some stairs"),
        ("oven", "an oven"),
    ],
)
def test_class_names_get_their_article(noun, phrase):
    assert noun_phrase(noun) == phrase


def test_several_things_are_named_with_their_number():
    assert [several("person", n) for n in (1, 2, 9)] == ["a person", "two people", "many people"]
    assert several("scissors", 2) == "a pair of scissors" and several("knife", 3) == "three knives"


# Questions that people asked


@pytest.mark.parametrize(
    ("question", "answer", "asked", "said", "task"),
    [
        ("what is on the left side of the image10?", "garbage bin", "What is on the left side of the picture?",
         "A garbage bin.", "vqa"),
        ("what is on the right side of?", "cup, stand", "What is on the right side of the picture?",
         "A cup and a stand.", "vqa"),
        ("how many sofa are?", "3", "How many sofas are there?", "Three.", "count"),
        ("what is colour of the bed?", "white, brown", "What is the color of the bed?", "White and brown.", "colour"),
        ("what is on the table?", "books", "What is on the table?", "Books.", "vqa"),
        ("what is found near the wall?", "night_stand", "What is found near the wall?", "A nightstand.", "vqa"),
    ],
)  # fmt: skip
def test_clumsy_questions_and_short_answers_become_plain_english(question, answer, asked, said, task):
    row = questions_asked.cleaned(question, answer)
    assert (row.question, row.answer, row.task) == (asked, said, task)
    assert answer.replace("_", " ").split(", ")[0] in row.accepted


@pytest.mark.parametrize(
    ("answer", "said", "task"),
    [
        ("Blue.", "Blue.", "colour"),
        ("Yes.", "Yes.", "yes"),
        ("no, there is none", "No, there is none.", "no"),
        ("It is a dog.", "It is a dog.", "vqa"),
        ("He is sitting on a bench, reading a book.", "He is sitting on a bench, reading a book.", "vqa"),
        ("Two", "Two.", "count"),
        ("On the table.", "On the table.", "vqa"),
    ],
)
def test_answers_of_ones_own_stay_as_they_are_written(answer, said, task):
    known = [Known("a.jpg", questions=(("What is there?", answer),))]
    (row,) = questions_asked.ask("mine", known, "train")["a.jpg"]
    assert (row.question, row.answer, row.task) == ("What is there?", said, task)


# Conversations


def test_conversations_are_ordered_and_follow_from_the_name(tmp_path):
    lines = [
        {"image": f"images/{n}.jpg", "label": label} for n, label in enumerate(["umbrella", "stapler"] * 20)
    ]
    pictures = photographs.read_folder(make_set(tmp_path / "caltech101", lines))
    talks = [[row for row in picture.turns if row.conversation] for picture in pictures]
    talks = [talk for talk in talks if talk]
    assert len(talks) > 15
    for talk in talks:
        assert [row.turn for row in talk] == list(range(len(talk))) and len(
            {row.conversation for row in talk}
        ) == 1
        assert talk[0].task == "name" and talk[0].answer in ("An umbrella.", "A stapler.")
        assert len({row.question for row in talk}) == len(talk) <= 4
    facts = {row.answer for talk in talks for row in talk if row.task == "chat"}
    assert "You could use it to fasten sheets of paper together." in facts


def test_every_fact_is_one_short_sentence_about_a_label():
    facts = [json.loads(line) for line in follow_ups.KNOWLEDGE.read_text().splitlines()]
    assert len({(fact["label"], fact["question"]) for fact in facts}) == len(facts) > 250
    assert all(fact["question"].endswith("?") and fact["answer"].endswith(".") for fact in facts)
    assert all(len(fact["answer"].split()) <= 20 for fact in facts)


def test_a_fact_names_its_thing_where_the_picture_shows_several():
    assert follow_ups.about("What is it used for?", "fork") == "What is the fork used for?"
    assert follow_ups.about("Where would I find one?", "oven") == "Where would I find an oven?"
    assert follow_ups.about("What could I use them for?", "scissors") == "What could I use the scissors for?"


# Files


def test_the_file_holds_the_new_columns_and_the_old_splits_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(splits, "TEST_PHOTOGRAPHS", 0)
    lines = [captioned(n) | {"boxes": [box("dog"), box("cat", 0.6)]} for n in range(20)]
    make_set(tmp_path / "photos/mine", lines)
    prepare.write_data({}, tmp_path / "out", photographs.read_folders(tmp_path / "photos"))
    table = pq.read_table(tmp_path / "out/mine.parquet")
    assert table.schema.names == parquet_file.SCHEMA.names
    rows = table.to_pylist()
    held_out = [row for row in rows if row["split"] == "validation"]
    assert len({row["image_id"] for row in held_out}) == 2
    assert any(row["references"] and row["task"] == "describe" for row in held_out)
    assert all(row["objects"] == ["cat", "dog"] for row in rows if row["task"] in ("count", "which"))
    kept = (tmp_path / "photos/mine/images/1.jpg").read_bytes()
    assert any(row["image"]["bytes"] == kept for row in rows)
