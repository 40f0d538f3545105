"""Data that people bring, in tiny files made here: what is read, what is skipped and told; a killed run goes on."""

import csv
import errno
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from tests.test_photographs import photograph
from tests.tiny import tiny_config, tiny_model
from training import convert
from training.adapters.conversations import Conversations
from training.config import SourceConfig
from training.data import pictures_of, read_rows
from training.data.features import FeatureStore
from training.formats import rows, texts
from training.formats.texts import Record, stream_json
from training.scores.selection import with_all_known
from training.scores.verdicts import is_right
from training.tasks.data import examples_of
from training.wording.questions import DESCRIBE
from vlm.errors import UserError

COLOURS = ("red", "lime", "blue", "white", "black", "gold")


def paint(colour: str, side: int = 80) -> Image.Image:
    return Image.new("RGB", (side, side // 2), colour)


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    paint(colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A picture of each colour, one that is broken, and one outside of the folder."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for colour in COLOURS:
        paint(colour).save(folder / f"{colour}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    paint("pink").save(tmp_path / "secret.png")
    return folder


def run(tmp_path: Path, *words: object, out: str = "out") -> Path:
    convert.convert(convert.parse([*map(str, words), "--output", str(tmp_path / out)]))
    return tmp_path / out


def table(out: Path) -> list[dict]:
    return [row for file in sorted(out.glob("*.parquet")) for row in parquet.read_table(file).to_pylist()]


def reasons(out: Path) -> list[tuple[int, str]]:
    lines = (out / "skipped.jsonl").read_text().splitlines()
    return [(problem["record"], problem["reason"]) for problem in map(json.loads, lines)]


def contents(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in out.iterdir()}


def write_csv(file: Path, lines: list[tuple[str, ...]], header: str = "image,question,answer") -> Path:
    with file.open("w", newline="", encoding="utf-8") as text:
        csv.writer(text).writerows([header.split(","), *lines])
    return file


def talk(*texts: str, image: object = "red.png") -> dict:
    speakers = itertools.cycle(["human", "gpt"])
    turns = [{"from": speaker, "value": text} for speaker, text in zip(speakers, texts, strict=False)]
    return {"id": "7", "image": image, "conversations": turns}


def write_json(file: Path, records: list) -> Path:
    file.write_text(json.dumps(records), encoding="utf-8")
    return file


def test_a_csv_becomes_rows_with_small_pictures_inside(tmp_path: Path, photos: Path) -> None:
    paint("red", 2000).save(photos / "large.png")
    lines = [
        ("large.png", "What color?", 'Red, "pure".', "val"),
        ("blue.png", " Größe? ", "Klein.\nSehr.", ""),
        ("blue.png", "Color?", "Blue.", "test"),
    ]
    file = write_csv(tmp_path / "mine.csv", lines, header="image, Question,answer,split")
    out = run(
        tmp_path, "csv", "--file", file, "--images", photos, "--validation-share", 0, "--kind", "drawing"
    )
    assert [path.name for path in out.glob("*.parquet")] == ["csv-00000.parquet"]
    first, second, third = table(out)
    assert [row["split"] for row in table(out)] == ["validation", "train", "test"]
    assert (first["answer"], second["question"], second["answer"]) == (
        'Red, "pure".',
        "Größe?",
        "Klein.\nSehr.",
    )
    assert (first["source"], first["kind"], first["conversation"]) == ("csv", "drawing", "")
    assert second["image_id"] == third["image_id"] != first["image_id"]
    picture = Image.open(io.BytesIO(first["image"]["bytes"]))
    assert picture.size == (512, 256)
    assert first["image"]["path"] == "large.png"
    assert reasons(out) == []


def test_whatever_cannot_be_used_is_told_and_skipped(tmp_path: Path, photos: Path) -> None:
    lines = [
        ("red.png", "What color?", "Red."),
        ("absent.png", "What color?", "Red."),
        ("broken.jpg", "What color?", "Red."),
        ("../secret.png", "What color?", "Pink."),
        (str(tmp_path / "secret.png"), "What color?", "Pink."),
        ("x/../../secret.png", "What color?", "Pink."),
        ("", "What color?", "Red."),
        ("red.png", "  ", "Red."),
        ("red.png", "What color?", ""),
        ("red.png", "What color?", "Red", "and an unquoted comma"),
        ("x/../red.png", "Again?", "Yes."),
        ("n" * 300, "Long?", "Yes."),
    ]
    file = write_csv(tmp_path / "mine.csv", lines)
    file.write_bytes(file.read_bytes() + b"red.png,caf\xe9?,No UTF-8.\r\n")
    out = run(tmp_path, "csv", "--file", file, "--images", photos)
    assert [row["question"] for row in table(out)] == ["What color?", "Again?"]
    assert reasons(out) == [
        (2, "missing picture"),
        (3, "broken picture"),
        (4, "outside the folder"),
        (5, "outside the folder"),
        (6, "outside the folder"),
        (7, "no picture"),
        (8, "empty question"),
        (9, "empty answer"),
        (10, "malformed record"),
        (12, "missing picture"),
        (13, "text that is not UTF-8"),
    ]


def test_the_report_counts_all_and_lists_the_first_twenty(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [("red.png", "q", "a"), *[(f"absent-{number}.png", "q", "a") for number in range(30)]]
    file = write_csv(tmp_path / "mine.csv", lines)
    words = f"convert csv --file {file} --images {photos} --output {tmp_path}/out".split()
    monkeypatch.setattr("sys.argv", words)
    convert.main()
    printed = capsys.readouterr().out
    assert "missing picture: 30 skipped" in printed
    assert "absent-19.png" in printed and "absent-20.png" not in printed
    assert len(reasons(tmp_path / "out")) == 30


def test_the_quote_that_is_never_closed_does_not_end_the_file(tmp_path: Path, photos: Path) -> None:
    text = 'image,question,answer\nred.png,"open,x\n' + "blue.png,Color?,Blue.\n" * 8_000
    (tmp_path / "mine.csv").write_text(text)
    out = run(tmp_path, "csv", "--file", tmp_path / "mine.csv", "--images", photos)
    assert "malformed record" in dict(reasons(out)).values()
    assert len(table(out)) > 1_000


@pytest.mark.parametrize("lines", [False, True])
def test_a_llava_conversation_keeps_its_turns_in_order(tmp_path: Path, photos: Path, lines: bool) -> None:
    records = [
        talk("<image>\nWhat color?", "Red.", "Sure?\n<image>", 'Yes [quite] \\ "sure" {} 😀.'),
        talk("Look: <image> what?", "A color.", image=["red.png"]),
    ]
    file = write_json(tmp_path / "talks.json", records)
    if lines:
        file.write_text("\n".join(map(json.dumps, records)))
    out = run(tmp_path, "llava", "--file", file, "--images", photos)
    found = [(row["question"], row["answer"], row["turn"]) for row in table(out)]
    assert found == [
        ("What color?", "Red.", 0),
        ("Sure?", 'Yes [quite] \\ "sure" {} 😀.', 1),
        ("Look: what?", "A color.", 0),
    ]
    conversations = [row["conversation"] for row in table(out)]
    assert conversations[0] == conversations[1] != conversations[2]
    assert all(conversations)


def test_odd_llava_records_are_told(tmp_path: Path, photos: Path) -> None:
    records = [
        talk("<image>a\n<image>", "b", image=["red.png", "blue.png"]),
        {"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}]},
        talk("<image>\n", "An answer to nothing.", "q", "a"),
        talk("q", "a", "unanswered"),
        {"image": "red.png"},
        "text",
        talk("q", "a", image=5),
        {"image": "red.png", "conversations": []},
        {
            "image": "red.png",
            "conversations": [{"from": "system", "value": "Be kind."}, *talk("q", "a")["conversations"]],
        },
        {"image": "red.png", "conversations": [{"from": "human", "value": 1}, {"from": "gpt", "value": "a"}]},
        talk("half a character \ud83d", "a"),
    ]
    out = run(tmp_path, "llava", "--file", write_json(tmp_path / "t.json", records), "--images", photos)
    assert reasons(out) == [
        (1, "more than one picture"),
        (2, "no picture"),
        (3, "empty question"),
        (4, "question without an answer"),
        (5, "malformed record"),
        (6, "malformed record"),
        (7, "malformed record"),
        (8, "malformed record"),
        (9, "conversation without its system message"),
        (10, "malformed record"),
        (11, "text that is not UTF-8"),
    ]
    assert [(row["question"], row["turn"], row["image"]["path"]) for row in table(out)] == [
        ("a", 0, "red.png"),
        ("q", 1, "red.png"),
        ("q", 0, "red.png"),
        ("q", 0, "red.png"),
    ]


def test_an_absolute_path_inside_the_folder_is_taken_and_one_outside_is_told(
    tmp_path: Path, photos: Path
) -> None:
    inside, outside = photos / "red.png", tmp_path / "secret.png"
    linked = tmp_path / "linked"
    linked.symlink_to(photos)
    names = [inside, outside, "/data/red.png", f"{photos}/../secret.png", photos.resolve() / "blue.png"]
    file = write_csv(tmp_path / "mine.csv", [(str(name), "q", "a") for name in names])
    for folder in (photos, linked):
        out = run(tmp_path, "csv", "--file", file, "--images", folder, out=f"out-{folder.name}")
        found = [row["image"]["path"] for row in table(out)]
        assert found == (["red.png", "blue.png"])
        assert reasons(out) == [(number, "outside the folder") for number in (2, 3, 4)]


def test_backslashes_are_slashes_unless_a_file_is_called_so(tmp_path: Path, photos: Path) -> None:
    (photos / "sub").mkdir()
    paint("lime").save(photos / "sub" / "win.png")
    paint("gold").save(photos / "odd\\name.png")
    names = [
        "sub\\win.png",
        ".\\sub\\win.png",
        "odd\\name.png",
        "..\\secret.png",
        "C:\\x\\red.png",
        "no\\file.png",
    ]
    file = write_csv(tmp_path / "mine.csv", [(name, "q", "a") for name in names])
    out = run(tmp_path, "csv", "--file", file, "--images", photos)
    found = [row["image"]["path"] for row in table(out)]
    assert found == ["sub/win.png", "sub/win.png", "odd\\name.png"]
    assert reasons(out) == [(4, "outside the folder"), (5, "outside the folder"), (6, "missing picture")]


def test_the_words_of_other_trainers_are_taken_and_unknown_speakers_are_named(
    tmp_path: Path, photos: Path
) -> None:
    def said(role: str, content: object) -> dict:
        return {"role": role, "content": content}

    parts = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    records = [
        {"image": "red.png", "conversations": [{"from": "user", "value": "a"}, {"from": "assistant", "value": "b"}]},
        {"images": ["red.png"], "messages": [said("user", "<image>\nc"), said("assistant", "d")]},
        {"images": ["red.png"], "messages": [said("user", parts), said("Assistant", "e")]},
        {"image": "red.png", "conversations": [{"from": "Alice", "value": "q"}, {"from": "Bob", "value": "a"}]},
    ]  # fmt: skip
    out = run(tmp_path, "llava", "--file", write_json(tmp_path / "t.json", records), "--images", photos)
    assert [(row["question"], row["answer"]) for row in table(out)] == [
        ("a", "b"),
        ("c", "d"),
        ("What is it?", "e"),
    ]
    unknown = "speaker that is none of human, user, gpt, assistant, system"
    assert reasons(out) == [(4, unknown)] * 2


def test_an_answer_that_training_would_leave_out_is_told_and_kept(tmp_path: Path, photos: Path) -> None:
    long = "word " * 2000
    file = write_csv(tmp_path / "mine.csv", [("red.png", "q", "a"), ("red.png", "Read it.", long)])
    out = run(tmp_path, "csv", "--file", file, "--images", photos)
    assert len(table(out)) == 2
    told = convert.problems_text(out)
    assert (
        "longer than 1024 tokens" in told
        and "1 (kept)" in told
        and "record 2: about 2502 tokens: 'Read it.'" in told
    )


def test_a_file_of_the_same_size_and_other_content_is_another_file(tmp_path: Path, photos: Path) -> None:
    file = write_csv(tmp_path / "mine.csv", [("red.png", "q", "a")])
    run(tmp_path, "csv", "--file", file, "--images", photos)
    write_csv(tmp_path / "mine.csv", [("red.png", "q", "b")])
    with pytest.raises(UserError, match=r"\(file differ\).*another folder"):
        run(tmp_path, "csv", "--file", file, "--images", photos)


VALUES = [
    {"a": 'x] } , [ { \\" \u2028'},
    {"b": [1, {"c": "é😀"}], "d": None},
    12345,
    {},
    {"": "\\"},
    [[]],
    -1.5e10,
    "]",
]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("options", [{}, {"indent": 2}, {"ensure_ascii": False}])
def test_json_is_the_same_wherever_the_chunks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, options: dict
) -> None:
    monkeypatch.setattr(texts, "CHUNK", chunk)
    (tmp_path / "a.json").write_text("\ufeff\n " + json.dumps(VALUES, **options) + "\n", encoding="utf-8")
    assert list(stream_json(tmp_path / "a.json")) == VALUES


@pytest.mark.slow
def test_json_that_is_cut_off_gives_what_is_whole(tmp_path: Path) -> None:
    text = json.dumps([talk("q", "a")] * 3)
    for cut in range(2, len(text)):
        (tmp_path / "a.json").write_text(text[:cut])
        *whole, last = stream_json(tmp_path / "a.json")
        assert isinstance(last, ValueError)
        assert whole == [talk("q", "a")] * text[:cut].count("]}")


def test_a_broken_json_line_costs_one_record(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": \n\n' + "[" * 100_000 + '\n{"a": 2}')
    assert [value if isinstance(value, dict) else None for value in stream_json(tmp_path / "a.jsonl")] == [
        {"a": 1},
        None,
        None,
        {"a": 2},
    ]


def test_broken_lines_and_missing_coco_pictures_are_counted_listed_and_skipped(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole command: what is whole is converted, and the report tells the rest."""
    (photos / "red.png").rename(photos / "000000000009.png")
    lines = [
        json.dumps(talk("<image>\nFirst?", "One.", image="000000000009.png")),
        '{"image": "000000000009.png", "conversations": [{"from": "hum',
        *(json.dumps(talk("<image>\nWhat?", "A.", image=f"{number:012}.jpg")) for number in range(25, 28)),
        json.dumps(talk("<image>\nLast?", "Two.", image="blue.png")),
    ]
    (tmp_path / "talks.jsonl").write_text("\n".join(lines))
    words = f"--file {tmp_path}/talks.jsonl --images {photos} --output {tmp_path}/out".split()
    monkeypatch.setattr("sys.argv", ["convert", "llava", *words])
    convert.main()
    assert [row["question"] for row in table(tmp_path / "out")] == ["First?", "Last?"]
    printed = capsys.readouterr().out
    assert "missing picture: 3 skipped" in printed and "000000000026.jpg" in printed
    assert "malformed record: 1 skipped\n    record 2: " in printed
    assert "2 rows in 1 files" in printed


def test_both_caption_files_of_flickr8k_give_the_same_rows(tmp_path: Path, photos: Path) -> None:
    kaggle = (
        'image,caption\nred.png,A red , flat thing .\nred.png,"Red, ""really"" ."\nblue.png,"Blue" it is .\n'
    )
    token = 'red.png#0\tA red , flat thing .\nred.png#1\tRed, "really" .\nblue.png#0\t"Blue" it is .\n'
    (tmp_path / "captions.txt").write_text(kaggle)
    (tmp_path / "token.txt").write_text(token)
    first = run(tmp_path, "flickr8k", "--file", tmp_path / "captions.txt", "--images", photos)
    second = run(tmp_path, "flickr8k", "--file", tmp_path / "token.txt", "--images", photos, out="other")
    assert table(first) == table(second)
    answers = [row["answer"] for row in table(first)]
    assert answers == ["A red , flat thing .", 'Red, "really" .', '"Blue" it is .']
    assert all(row["question"] in DESCRIBE for row in table(first))


def coco_file(file: Path, **members: list) -> Path:
    file.write_text(json.dumps({"info": {"year": 2017}, **members}))
    return file


def test_captions_of_coco_find_their_pictures_in_both_releases(tmp_path: Path) -> None:
    paint("red").save(tmp_path / "000000000007.jpg")
    paint("blue").save(tmp_path / "COCO_val2014_000000000009.jpg")
    said = [
        {"image_id": 7, "caption": "a dog runs on the grass ."},
        {"image_id": 9, "caption": "Two cats sleep outside"},
        {"image_id": 7, "caption": "A brown dog is running"},
    ]
    file = coco_file(
        tmp_path / "captions.json",
        images=[{"id": 7}],
        annotations=[*said, {"image_id": 8, "caption": "A lost one."}, 5],
    )
    out = run(tmp_path, "coco-captions", "--file", file, "--images", tmp_path)
    of_dog = [
        "A dog runs on the grass.",
        "A brown dog is running.",
    ]  # stand together: its picture is stored once
    assert [row["answer"] for row in table(out)] == [*of_dog, "Two cats sleep outside."]
    assert [row["references"] for row in table(out)] == [of_dog, of_dog, ["Two cats sleep outside."]]
    assert all(row["question"] in DESCRIBE for row in table(out))
    assert reasons(out) == [(1, "malformed record"), (4, "missing picture")]


@pytest.mark.parametrize("form", ["coco-captions", "coco-instances"])
def test_pictures_of_coco_are_found_by_the_name_that_the_file_has(tmp_path: Path, form: str) -> None:
    for colour in ("red", "blue"):
        paint(colour).save(tmp_path / f"{colour} dog.png")
    paint("lime").save(tmp_path / "000000000009.jpg")
    names = {7: "red dog.png", 8: "photos\\blue dog.png", 9: "gone.jpg", 10: "lost.jpg"}
    images = [{"id": id, "file_name": name, "width": 80, "height": 40} for id, name in names.items()]
    known = {"caption": "A dog runs on the grass.", "category_id": 1, "bbox": [5, 5, 20, 20]}
    file = coco_file(
        tmp_path / "mine.json",
        images=images,
        annotations=[{"image_id": number} | known for number in names],
        categories=[{"id": 1, "name": "dog"}],
    )
    out = run(tmp_path, form, "--file", file, "--images", tmp_path)
    assert {row["image"]["path"] for row in table(out)} == {"red dog.png", "blue dog.png", "000000000009.jpg"}
    assert "lost.jpg" in (out / "skipped.jsonl").read_text()


def test_boxes_of_coco_become_questions_and_crowds_are_not_counted(tmp_path: Path) -> None:
    images, annotations = [], []
    for number in range(21):
        paint("red").save(tmp_path / f"{number:012d}.jpg")
        images.append({"id": number, "width": 80, "height": 40})
        for place in range(1 + number % 3):
            annotations.append(
                {
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [20 * place, 5, 15, 15],
                    "iscrowd": number == 20,
                }
            )
    annotations.append({"image_id": 99, "category_id": 1, "bbox": [0, 0, 1, 1]})
    kinds = [{"id": 1, "name": "dog"}]
    file = coco_file(tmp_path / "instances.json", images=images, annotations=annotations, categories=kinds)
    out = run(tmp_path, "coco-instances", "--file", file, "--images", tmp_path)
    counts = {
        row["image"]["path"]: row["answer"]
        for row in table(out)
        if "umber" in row["question"] or "many" in row["question"]
    }
    assert counts and all(
        answer == ("One.", "Two.", "Three.")[int(name[:12]) % 3] for name, answer in counts.items()
    )
    paths = {row["image"]["path"] for row in table(out)}
    assert "000000000000.jpg" in paths and "000000000020.jpg" not in paths
    assert all(row["objects"] == ["dog"] and row["task"] for row in table(out))
    assert all(row["accepted"] for row in table(out) if row["task"] == "count")
    assert reasons(out) == [(1, "malformed record")]


def test_a_file_without_annotations_is_one_sentence(tmp_path: Path) -> None:
    file = coco_file(tmp_path / "other.json", images=[])
    with pytest.raises(UserError, match='has no list "annotations"'):
        run(tmp_path, "coco-captions", "--file", file, "--images", tmp_path)


def test_the_wording_of_describe_varies_and_hangs_on_picture_and_caption(tmp_path: Path) -> None:
    (tmp_path / "token.txt").write_text("".join(f"{n}.jpg#0\tA thing.\n" for n in range(200)))
    asked = [record.turns[0][0] for record in texts.from_flickr8k(tmp_path / "token.txt")]
    assert set(asked) == set(DESCRIBE)
    assert asked == [record.turns[0][0] for record in texts.from_flickr8k(tmp_path / "token.txt")]


def test_pixmo_finds_pictures_by_hash_by_address_and_inside(tmp_path: Path, photos: Path) -> None:
    paint("pink").save(photos / "ab12.jpg")
    paint("gray").save(photos / "big dog.png")
    questions = [
        {"image_url": "https://x.y/absent.png", "image_sha256": "ab12", "question": "q0", "answer": "a0"},
        {
            "image_url": "https://x.y/red.png?w=2",
            "image_sha256": "cd",
            "question": "[USER] q1 [ASSISTANT]",
            "answer": "a1",
        },
        {
            "image_url": "https://x.y/%2e%2e%2fsecret.png",
            "image_sha256": "../secret",
            "question": "q2",
            "answer": "a2",
        },
        {"image_url": "http://[", "image_sha256": None, "question": "q3", "answer": "a3"},
    ]
    captions = [
        {
            "image_url": "https://x.y/a/big%20dog.png",
            "caption": "A dog.",
            "transcripts": ["uh"],
            "image": None,
        },
        {
            "image_url": "https://x.y/z.png",
            "caption": "Gold.",
            "transcripts": [],
            "image": {"bytes": png("gold"), "path": "z"},
        },
        {"image_url": "https://x.y/red.png", "caption": None, "transcripts": [], "image": None},
    ]
    parquet.write_table(pa.Table.from_pylist(questions), tmp_path / "ask.parquet")
    parquet.write_table(pa.Table.from_pylist(captions), tmp_path / "cap.parquet")
    files = (tmp_path / "ask.parquet", tmp_path / "cap.parquet")
    out = run(tmp_path, "pixmo", "--file", *files, "--images", photos)
    found = [(row["image"]["path"], row["answer"]) for row in table(out)]
    assert found == [("ab12.jpg", "a0"), ("red.png", "a1"), ("big dog.png", "A dog."), ("", "Gold.")]
    assert [row["question"] for row in table(out)][:2] == ["q0", "q1"]
    assert {row["question"] for row in table(out)[2:]} <= set(DESCRIBE)
    assert reasons(out) == [(3, "missing picture"), (4, "no picture"), (7, "empty answer")]
    gold = Image.open(io.BytesIO(table(out)[3]["image"]["bytes"])).convert("RGB").getpixel((5, 5))
    assert all(abs(is_ - should) < 12 for is_, should in zip(gold, (255, 215, 0), strict=True))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return pytest.importorskip("datasets")


def test_a_data_set_of_the_datasets_package_is_read(tmp_path: Path, photos: Path, hub) -> None:
    columns = {
        "picture": [png("red"), png("blue"), b"no picture"],
        "question": ["q0", "q1", "q2"],
        "answers": list("abc"),
    }
    columns["picture"] = [{"bytes": content, "path": None} for content in columns["picture"]]
    made = hub.Dataset.from_dict(columns).cast_column("picture", hub.Image())
    hub.DatasetDict(test=made).save_to_disk(tmp_path / "saved")
    (tmp_path / "tables").mkdir()
    made.to_parquet(tmp_path / "tables" / "test-00000.parquet")
    outs = [
        run(
            tmp_path,
            *(
                "datasets",
                "--name",
                tmp_path / kind,
                "--split",
                "test",
                "--image",
                "picture",
                "--answer",
                "answers",
            ),
            out=f"out-{kind}",
        )
        for kind in ("saved", "tables")
    ]
    for out in outs:
        found = [(row["question"], row["answer"], row["split"]) for row in table(out)]
        assert found == [("q0", "a", "test"), ("q1", "b", "test")]
        assert reasons(out) == [(3, "broken picture")]
    with pytest.raises(UserError, match="no column picture2.*picture, question, answers"):
        run(
            tmp_path,
            "datasets",
            "--name",
            tmp_path / "tables",
            "--split",
            "test",
            "--image",
            "picture2",
            out="x",
        )
    with pytest.raises(UserError, match="no split train"):
        run(tmp_path, "datasets", "--name", tmp_path / "saved", out="x")


def test_a_folder_of_pictures_with_metadata_is_read_and_not_left(tmp_path: Path, photos: Path, hub) -> None:
    folder = tmp_path / "set"
    (folder / "train").mkdir(parents=True)
    paint("red").save(folder / "train" / "red.png")
    (folder / "train" / "metadata.csv").write_text("file_name,question,answer\nred.png,Color?,Red.\n")
    out = run(tmp_path, "datasets", "--name", folder)
    assert [(row["question"], row["image"]["path"]) for row in table(out)] == [("Color?", "train/red.png")]
    outside = {
        "image": [{"bytes": None, "path": str(tmp_path / "secret.png")}],
        "question": ["q"],
        "answer": ["a"],
    }
    (tmp_path / "evil").mkdir()
    parquet.write_table(pa.table(outside), tmp_path / "evil" / "train.parquet")
    with pytest.raises(UserError, match="outside the folder: 1"):
        run(tmp_path, "datasets", "--name", tmp_path / "evil", out="other")


def test_without_the_datasets_package_the_error_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(UserError, match="pip install datasets"):
        run(tmp_path, "datasets", "--name", "owner/name")


@pytest.fixture
def many(tmp_path: Path, photos: Path) -> list[object]:
    """Arguments of a conversion of several shards, with problems in between, and pictures that neighbours share."""
    lines = []
    for number in range(40):
        Image.effect_noise((90, 90), 100).save(photos / f"noise-{number}.png")
        lines += [(f"noise-{number}.png", f"q{turn}", f"a{number}") for turn in range(3)]
        lines += [(f"absent-{number}.png", "q", "a")] if number % 3 == 0 else []
    file = write_csv(tmp_path / "many.csv", lines)
    return ["csv", "--file", file, "--images", photos, "--shard-megabytes", 0.02]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("survived", [0, 1, 50, 120])
def test_a_killed_conversion_goes_on_and_ends_like_an_unbroken_one(
    tmp_path: Path, many: list[object], monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    unbroken = run(tmp_path, *many)
    assert len(list(unbroken.glob("*.parquet"))) > 3
    read = rows.PictureReader.read
    calls = itertools.count()

    def read_and_die(self: rows.PictureReader, record: Record) -> object:
        if next(calls) == survived:
            raise Killed
        return read(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(rows.PictureReader, "read", read_and_die)
        with pytest.raises(Killed):
            run(tmp_path, *many, out="broken")
    left = tmp_path / "broken"
    before = {file.name: file.stat().st_mtime_ns for file in left.glob("*.parquet")}
    (left / f"csv-{len(before):05d}.parquet.partial").write_bytes(b"half")  # as after a power cut
    with (left / "skipped.jsonl").open("a") as skipped:
        skipped.write('{"record": 9')
    run(tmp_path, *many, out="broken")
    assert contents(left) == contents(unbroken)
    assert {name: (left / name).stat().st_mtime_ns for name in before} == before


def test_a_disk_that_fills_up_costs_no_whole_file(
    tmp_path: Path, many: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = run(tmp_path, *many)
    write, calls = parquet.ParquetWriter.write_table, itertools.count()

    def write_or_not(self: parquet.ParquetWriter, *arguments: object) -> None:
        if next(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, *arguments)

    words = ["convert", *map(str, many), "--output", str(tmp_path / "broken")]
    monkeypatch.setattr("sys.argv", words)
    with monkeypatch.context() as patch:
        patch.setattr(parquet.ParquetWriter, "write_table", write_or_not)
        with pytest.raises(
            SystemExit, match="disk is full.*free at least 1 GB and give the same command again"
        ):
            convert.main()
    left = {path.name for path in (tmp_path / "broken").iterdir()}
    assert left == {"csv-00000.parquet", "csv-00001.parquet", "progress.json", "skipped.jsonl"}
    convert.main()
    assert contents(tmp_path / "broken") == contents(unbroken)


def test_a_finished_conversion_says_so_and_does_nothing(
    tmp_path: Path, many: list[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run(tmp_path, *many)
    before = contents(out)
    monkeypatch.setattr(rows.PictureReader, "read", None)
    run(tmp_path, *many)
    assert contents(out) == before
    assert "finished before" in capsys.readouterr().out


def test_other_arguments_or_other_data_need_another_folder(tmp_path: Path, many: list[object]) -> None:
    out = run(tmp_path, *many)
    with pytest.raises(UserError, match=r"\(kind differ\).*another folder"):
        run(tmp_path, *many, "--kind", "drawing")
    with Path(str(many[2])).open("a") as file:
        file.write("red.png,one more,a\r\n")
    with pytest.raises(UserError, match=r"\(file differ\).*another folder"):
        run(tmp_path, *many)
    (out / "progress.json").unlink()
    with pytest.raises(UserError, match="csv-00000.parquet is there already.*another folder"):
        run(tmp_path, *many)


def test_where_nothing_can_be_read_the_error_counts_why_and_other_arguments_may_follow(
    tmp_path: Path, photos: Path
) -> None:
    file = write_csv(tmp_path / "mine.csv", [("red.png", "q", "a")] * 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="Nothing could be read(.|\n)*missing picture: 3"):
        run(tmp_path, "csv", "--file", file, "--images", tmp_path / "empty")
    assert not list((tmp_path / "out").glob("*.parquet*"))
    assert len(table(run(tmp_path, "csv", "--file", file, "--images", photos))) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["csv", "--file", "nowhere.csv", "--images", "."], "There is no file nowhere.csv"),
        (["csv", "--file", __file__, "--images", "nowhere"], "There is no folder nowhere"),
        (["csv", "--file", __file__, "--images", "."], "no column image, question, answer"),
        (["flickr8k", "--file", __file__, "--images", "."], "not a caption file"),
        (["pixmo", "--file", __file__, "--images", "."], "not a whole parquet file"),
        (["llava", "--file", __file__], "needs --images"),
        (["llava", "--images", "."], "needs --file"),
        (["datasets"], "needs --name"),
        (
            ["datasets", "--name", "x", "--split", "extra[:10%]"],
            "--split extra.* is none of train, validation",
        ),
        (["csv", "--file", __file__, "--images", ".", "--keep-out", "nowhere"], "Check --keep-out"),
        (["csv", "--file", __file__, "--images", ".", "--keep-out", "."], "has no|holds no parquet files"),
        (
            ["csv", "--file", __file__, "--images", ".", "--keep-out", ".", "--kind", "synthetic"],
            "look alike",
        ),
        (["csv", "--file", __file__, "--images", ".", "--source", "../x"], "use letters"),
        (["csv", "--file", __file__, "--images", ".", "--validation-share", "2"], "between 0 and 1"),
    ],
)
def test_wrong_arguments_and_wrong_files_are_plain_errors(
    tmp_path: Path, words: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(tmp_path, *words)


def test_an_unknown_format_lists_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        convert.parse(["coco", "--output", "x"])
    error = capsys.readouterr().err
    assert all(name in error for name in ("llava", "csv", "flickr8k", "pixmo", "datasets"))


@pytest.mark.slow
def test_reading_is_lazy(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for ten records, no reader has the file's end in hand; a shard is written before the next record is read."""
    talks = json.dumps([talk("q" * 1000, "a")] * 5000)
    (tmp_path / "talks.json").write_text(talks[:-1] + ", broken")
    assert all(record.turns for record in itertools.islice(texts.from_llava(tmp_path / "talks.json"), 10))

    opened: list[io.TextIOBase] = []
    real = texts.open_text

    def watched(file: Path) -> io.TextIOBase:
        opened.append(real(file))
        return opened[-1]

    monkeypatch.setattr(texts, "open_text", watched)
    (tmp_path / "captions.txt").write_text("image,caption\n" + "red.png,A thing.\n" * 50_000)
    write_csv(tmp_path / "mine.csv", [("red.png", "q", "a")] * 50_000)
    readers = {
        "talks.json": texts.from_llava,
        "mine.csv": texts.from_csv,
        "captions.txt": texts.from_flickr8k,
    }
    for name, reader in readers.items():
        reading = reader(tmp_path / name)
        assert len(list(itertools.islice(reading, 10))) == 10
        assert opened[-1].buffer.tell() < (tmp_path / name).stat().st_size / 2  # type: ignore
        reading.close()

    def records(file: Path) -> Iterator[Record]:
        for number in range(100):
            yield Record(names=(f"{COLOURS[number % 6]}.png",), turns=(("q", "a"),))
            if number == 10:
                assert list((tmp_path / "out").glob("csv-*.parquet"))
        raise Killed

    monkeypatch.setitem(convert.FILE_FORMATS, "csv", records)
    with pytest.raises(Killed):
        run(tmp_path, "csv", "--file", tmp_path / "mine.csv", "--images", photos, "--shard-megabytes", 0.0001)
    assert len(table(tmp_path / "out")) > 80


def test_a_picture_that_neighbours_share_is_decoded_once(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    real = rows.open_image
    monkeypatch.setattr(rows, "open_image", lambda source: opened.append(source) or real(source))
    lines = [("red.png", f"q{number}", "a") for number in range(5)] + [("blue.png", "q", "a")] * 2
    run(tmp_path, "csv", "--file", write_csv(tmp_path / "mine.csv", lines), "--images", photos)
    assert [path.name for path in opened] == ["red.png", "blue.png"]


def test_all_rows_of_a_picture_go_to_one_split_and_the_share_is_kept(tmp_path: Path, photos: Path) -> None:
    lines = []
    for number in range(300):
        Image.new("RGB", (8, 8), (number % 256, number // 256, 7)).save(photos / f"{number}.png")
        lines.append((f"{number}.png", "q0", "a"))
    lines += [(name, "q1", "a") for name, _, _ in reversed(lines)]
    file = write_csv(tmp_path / "mine.csv", lines)
    out = run(tmp_path, "csv", "--file", file, "--images", photos, "--validation-share", 0.2)
    splits: dict[str, set[str]] = {}
    for row in table(out):
        splits.setdefault(row["image_id"], set()).add(row["split"])
    assert len(splits) == 300
    assert all(len(names) == 1 for names in splits.values())
    assert (
        35 < sum(names == {"validation"} for names in splits.values()) < 85
    )  # 60, and 3.6 standard deviations


def test_what_is_written_is_read_and_laid_out_for_training(tmp_path: Path, photos: Path) -> None:
    records = [
        talk("<image>\nFirst?", "One.", "Second?", "Two.", "Third?", "Three.", image=f"{colour}.png")
        for colour in (*COLOURS, "red")
    ]
    file = write_json(tmp_path / "talks.json", records)
    out = run(
        tmp_path, "llava", "--file", file, "--images", photos, "--source", "talks", "--validation-share", 0
    )
    model = tiny_model()
    store = FeatureStore(out, tiny_config().vision)
    store.add(pictures_of(out, "train"), model.eyes.vision)
    assert len(store) == len(COLOURS)
    laid_out = Conversations(
        read_rows(out, "train"),
        store,
        {},
        model.language.tokenizer,
        tokens_per_picture=model.eyes.tokens_per_picture,
        system="Look.",
        style="full",
        sources=[SourceConfig("talks", turns=2)],
        batch_size=2,
        epochs=3,
        tag_dropout=0.0,
        max_tokens=1024,
        several_pictures=0.0,
        seed=0,
    )
    assert len(laid_out) == 3 * len(records)
    for drawn in laid_out.examples:
        assert len({turn.row.conversation for turn in drawn}) == 1
        assert [turn.row.turn for turn in drawn] == [0, 1]
    assert laid_out[0]["encoded"].labels


def test_a_split_is_one_that_training_knows(tmp_path: Path, photos: Path) -> None:
    lines = [("red.png", "q?", "a", split) for split in ("Training", "val", "testing", "train_sft", "")]
    file = write_csv(tmp_path / "mine.csv", lines, header="image,question,answer,split")
    out = run(tmp_path, "csv", "--file", file, "--images", photos)
    assert [row["split"] for row in table(out)][:3] == ["train", "validation", "test"] and len(
        table(out)
    ) == 4
    assert reasons(out) == [(4, "a split that is none of train, validation, test")]


def test_an_unknown_split_is_told_before_its_picture_is_read(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    real = rows.open_image
    monkeypatch.setattr(rows, "open_image", lambda source: opened.append(source) or real(source))
    lines = [("red.png", "q?", "a", "train"), ("blue.png", "q?", "a", "extra")]
    file = write_csv(tmp_path / "mine.csv", lines, header="image,question,answer,split")
    run(tmp_path, "csv", "--file", file, "--images", photos)
    assert [path.name for path in opened] == ["red.png"]


def test_training_pictures_that_look_like_held_out_ones_of_other_data_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for number in range(8):
        photograph(folder / f"{number}.jpg", number)
    lines = [(f"{number}.jpg", "q?", "a", "validation" if number < 2 else "train") for number in range(4)]
    header = "image,question,answer,split"
    file = write_csv(tmp_path / "first.csv", lines, header)
    words = ("--images", folder, "--validation-share", 0)
    first = run(tmp_path, "csv", "--file", file, *words, out="first")
    with Image.open(folder / "0.jpg") as image:  # of the first two each is another file now
        image.resize((60, 40)).save(folder / "5.jpg", quality=70)
    photograph(folder / "1.jpg", 1, (120, 80))
    lines = [(f"{number}.jpg", "q?", "a", "validation" if number == 5 else "train") for number in range(8)]
    file = write_csv(tmp_path / "second.csv", lines, header)
    out = run(tmp_path, "csv", "--file", file, *words, "--keep-out", first)
    told = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert [(each["reason"], each["detail"]) for each in told] == [
        ("looks like a held-out picture", f"{number}.jpg looks like {number}.jpg") for number in range(2)
    ]
    assert [row["image"]["path"] for row in table(out)] == [f"{number}.jpg" for number in range(2, 8)]
    run(tmp_path, "csv", "--file", file, *words, "--keep-out", first)  # it is the same conversion
    third = run(tmp_path, "csv", "--file", file, *words, out="third")
    with pytest.raises(UserError, match="another conversion .keep_out differ"):
        run(tmp_path, "csv", "--file", file, *words, "--keep-out", third)


def test_a_conversion_from_before_there_was_keep_out_goes_on(tmp_path: Path, photos: Path) -> None:
    file = write_csv(tmp_path / "mine.csv", [("red.png", "q?", "a")])
    out = run(tmp_path, "csv", "--file", file, "--images", photos)
    assert "keep_out" not in json.loads((out / "progress.json").read_text())["arguments"]


def test_captions_are_descriptions_that_are_scored_against_all_of_their_pictures(
    tmp_path: Path, photos: Path
) -> None:
    (tmp_path / "captions.txt").write_text(
        "image,caption\nred.png,A red wall.\nred.png,A wall that is red.\nblue.png,A blue wall.\n"
    )
    out = run(
        tmp_path,
        "flickr8k",
        "--file",
        tmp_path / "captions.txt",
        "--images",
        photos,
        "--validation-share",
        0.9,
    )
    known = read_rows(out, "validation")
    (one, *_) = rows = with_all_known(known, known)
    assert {row.task for row in rows} == {"describe"} and one.references == (
        "A red wall.",
        "A wall that is red.",
    )
    assert is_right(one, "A wall, red.") is None
    captions = examples_of(known)["captions"]
    assert sorted(len(each.texts) for each in captions) == [1, 2]
