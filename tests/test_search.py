"""Search by words, by pictures and by both; names told apart; zips; the shell's commands."""

import io
import json
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.tiny_aligner import COLOURS, tiny_searcher
from vlm import Searcher, UserError, commands
from vlm.__main__ import main
from vlm.chat.index import PictureIndex
from vlm.chat.search import TEMPLATES, names_vectors, split_names
from vlm.inputs import zips
from vlm.inputs.images import MAX_PICTURE_BYTES
from vlm.inputs.zips import unpack_pictures


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def searcher() -> Searcher:
    return tiny_searcher()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for colour in COLOURS:
        Image.new("RGB", (16, 16), colour).save(tmp_path / "photos" / f"{colour}.png")
    return tmp_path / "photos"


@pytest.fixture
def index(searcher: Searcher, folder: Path) -> PictureIndex:
    return searcher.index(folder)


def names(found: list) -> list[str]:
    return [Path(each.path).stem for each in found]


def test_pictures_are_found_by_words_best_first(searcher: Searcher, index: PictureIndex) -> None:
    found = searcher.search("something blue", index=index, count=3)
    assert names(found)[0] == "blue"
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    assert len(found) == 3


def test_an_index_at_home_is_known_again_and_guarded(
    searcher: Searcher, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    searcher.index(folder, "~/mine.safetensors")
    again = searcher.index(folder, "~/mine.safetensors")
    assert again.report.added == 0 and (tmp_path / "mine.safetensors").is_file()
    Image.new("RGB", (16, 16), "navy").save(tmp_path / "other.png")
    with pytest.raises(UserError, match="of other pictures"):
        searcher.index([tmp_path / "other.png"], "~/mine.safetensors")


def test_pictures_are_found_by_a_picture(searcher: Searcher, index: PictureIndex, folder: Path) -> None:
    found = searcher.search(picture=folder / "red.png", index=index)
    assert names(found)[0] == "red"
    assert found[0].score == pytest.approx(1.0)
    assert len(found) == len(COLOURS)


def test_words_and_a_picture_together_are_the_mean_of_both(
    searcher: Searcher, index: PictureIndex, folder: Path
) -> None:
    both = searcher.query("blue", folder / "red.png", 8)
    apart = searcher.query("blue", None, 8) + searcher.query("", folder / "red.png", 8)
    assert torch.allclose(both, apart / apart.norm(), atol=1e-6)
    (found,) = searcher.search("blue", folder / "red.png", index=index, count=1)
    assert found.score == pytest.approx((index.vectors @ both).max().item())


@pytest.mark.parametrize(
    ("words", "count", "message"),
    [
        ("x" * 10_000, 24, "has 10,000 characters and at most 1,000 fit"),
        ("  ", 24, "type what to look for, or choose a picture"),
        ("red", 0, "at least one picture"),
    ],
)
def test_a_search_that_cannot_be_made_is_refused_in_a_sentence(
    searcher: Searcher, index: PictureIndex, words: str, count: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        searcher.search(words, index=index, count=count)


def test_an_empty_index_and_a_broken_picture_are_refused_in_a_sentence(
    searcher: Searcher, index: PictureIndex, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="no pictures to search in"):
        searcher.search("red", index=searcher.new_index())
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="bad.png"):
        searcher.search(picture=tmp_path / "bad.png", index=index)


def test_names_get_probabilities_that_make_one(searcher: Searcher, folder: Path) -> None:
    probable = searcher.classify(folder / "red.png", ["blue", "red", "lime"])
    assert probable[0][0] == "red" and searcher.classify(folder / "red.png", "blue, red, lime") == probable
    assert sum(probability for _, probability in probable) == pytest.approx(1.0)
    assert {name for name, _ in probable} == {"blue", "red", "lime"}


def test_templates_are_averaged(searcher: Searcher) -> None:
    templates = ("{}.", "a {} thing beside a white one.")
    vectors = [searcher.aligner.embed_texts([each.replace("{}", "red")])[0] for each in templates]
    mean = torch.stack(vectors).mean(dim=0)
    (got,) = names_vectors(searcher.aligner, ["red"], templates)
    assert torch.allclose(got, mean / mean.norm(), atol=1e-6)
    assert all(template.count("{}") == 1 for template in TEMPLATES)


def test_a_name_with_braces_is_a_name(searcher: Searcher, folder: Path) -> None:
    assert searcher.classify(folder / "red.png", ["red", "{0} {name}"])[0][0] == "red"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "give the names to choose from"),
        (" , ", "give the names to choose from"),
        ("cat, dog, Cat", '"cat" is there twice'),
        ("cat", "at least two names"),
        ("cat, " + "x" * 500, "500 characters and at most 200"),
        (",".join(map(str, range(2_000))), "2,000 names, and at most 1,000"),
    ],
)
def test_names_that_are_empty_or_repeated_or_too_many_are_refused(
    searcher: Searcher, folder: Path, given: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        searcher.classify(folder / "red.png", split_names(given))


def test_names_stand_between_commas_or_on_lines() -> None:
    assert [each.strip() for each in split_names("cat, dog\nbird,\n")] == ["cat", "dog", "bird"]


# Zips


def png(colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


def packed(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def unpacked(source: Path, folder: Path) -> list[str]:
    folder.mkdir(exist_ok=True)
    return [each.name for each in unpack_pictures(source, folder, lambda size: None)]


def test_only_the_pictures_of_a_zip_are_unpacked_and_nothing_lands_outside(tmp_path: Path) -> None:
    files = {
        "../../out.png": png(),
        "/abs.png": png(),
        "deep/er/a.JPG": png(),
        "run.sh": b"rm",
        "inner.zip": b"PK",
    }
    files |= {"__MACOSX/._a.png": b"", ".hidden/b.png": png(), "deep/": b""}
    found = unpacked(packed(tmp_path / "all.zip", files), tmp_path / "in")
    assert sorted(found) == ["../../out.png", "/abs.png", "deep/er/a.JPG"]
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == [
        "00000.png",
        "00001.png",
        "00002.jpg",
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"all.zip", "in"}


def test_a_zip_bomb_is_refused_by_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zips, "MAX_UNPACKED", 2**20)
    bomb = packed(tmp_path / "bomb.zip", {f"{number}.png": bytes(2**19) for number in range(3)})
    assert bomb.stat().st_size < 10_000
    with pytest.raises(UserError, match='The zip "bomb.zip" would unpack to more than 1 MB'):
        unpacked(bomb, tmp_path / "in")
    assert not list((tmp_path / "in").iterdir())


def test_a_zip_bomb_is_refused_by_what_comes_out_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is read no further than it says it is long, so one that lies about it is damaged."""
    monkeypatch.setattr(zips, "MAX_UNPACKED", 2**20)
    bomb = packed(tmp_path / "bomb.zip", {"a.png": bytes(2**22)})
    content = bomb.read_bytes().replace(struct.pack("<I", 2**22), struct.pack("<I", 1_000))
    bomb.write_bytes(content)
    with pytest.raises(UserError, match="damaged or no zip"):
        unpacked(bomb, tmp_path / "in")
    assert sum(path.stat().st_size for path in (tmp_path / "in").iterdir()) <= 2**20


def test_a_file_that_is_too_large_for_a_picture_is_not_unpacked_whole(tmp_path: Path) -> None:
    large = packed(tmp_path / "large.zip", {"a.png": bytes(4 * MAX_PICTURE_BYTES)})
    assert unpacked(large, tmp_path / "in") == ["a.png"]
    assert (tmp_path / "in" / "00000.png").stat().st_size <= MAX_PICTURE_BYTES + zips.CHUNK


def test_a_zip_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = packed(tmp_path / "many.zip", {f"{number}.png": b"" for number in range(300)})
    monkeypatch.setattr(zips, "LARGEST_READ", 4_096)
    with pytest.raises(UserError, match="more than 10,000 files"):
        unpacked(many, tmp_path / "in")
    monkeypatch.undo()
    monkeypatch.setattr(zips, "MAX_FILES", 200)
    with pytest.raises(UserError, match="more than 200 files"):
        unpacked(many, tmp_path / "in")


def test_what_is_no_zip_or_holds_no_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(b"PK no zip")
    with pytest.raises(UserError, match="damaged or no zip"):
        unpacked(tmp_path / "bad.zip", tmp_path / "in")
    with pytest.raises(UserError, match="holds no pictures"):
        unpacked(packed(tmp_path / "words.zip", {"a.txt": b"words"}), tmp_path / "in")
    whole = packed(tmp_path / "cut.zip", {"a.png": png() * 50}, zipfile.ZIP_STORED).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:200] + bytes(100) + whole[300:])
    with pytest.raises(UserError, match="damaged or no zip"):
        unpacked(tmp_path / "cut.zip", tmp_path / "in")
    locked = packed(tmp_path / "locked.zip", {"a.png": png()}).read_bytes()
    place = locked.index(b"PK\x01\x02") + 8  # the flags, of which the first says that a password is needed
    (tmp_path / "locked.zip").write_bytes(locked[:place] + b"\x01" + locked[place + 1 :])
    with pytest.raises(UserError, match="password"):
        unpacked(tmp_path / "locked.zip", tmp_path / "in")


# The shell


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> object:
    """What a command prints."""
    monkeypatch.setattr(commands, "load_aligner", lambda name: tiny_searcher(name))

    def run(*arguments: str) -> tuple[str, str]:
        monkeypatch.setattr("sys.argv", ["vlm", *arguments])
        main()
        return capsys.readouterr()

    return run


def test_the_shell_finds_pictures_and_says_what_it_indexed(shell, folder: Path) -> None:  # type: ignore[no-untyped-def]
    out, err = shell("search", "a blue thing", "--folder", str(folder), "--count", "2")
    assert out.splitlines()[0].endswith("blue.png")
    assert len(out.splitlines()) == 2
    assert "8 pictures in the index (8 new)." in err
    out, err = shell("search", "--picture", str(folder / "red.png"), "--folder", str(folder), "--json")
    assert json.loads(out)[0]["path"] == str(folder / "red.png")
    assert err.strip() == "8 pictures in the index."


def test_the_shell_searches_in_a_saved_index(shell, folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    kept = str(tmp_path / "kept.safetensors")
    shell("search", "red", "--folder", str(folder), "--index", kept)
    out, _ = shell("search", "lime", "--index", kept, "--count", "1")
    assert out.strip().endswith("lime.png")
    with pytest.raises(SystemExit, match="^vlm: .*made by the aligner embedded, and the one in use is other"):
        shell("search", "lime", "--index", kept, "--aligner", "other")


def test_the_shell_tells_names_apart(shell, folder: Path) -> None:  # type: ignore[no-untyped-def]
    out, _ = shell("classify", str(folder / "red.png"), "--names", "blue, red, lime")
    assert out.splitlines()[0].startswith("red ")
    assert "%" in out and "█" in out
    out, _ = shell("classify", str(folder / "red.png"), "--names", "blue, red", "--json")
    assert list(json.loads(out)) == ["red", "blue"]


def test_the_shell_refuses_in_a_sentence_and_before_it_indexes(shell, folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SystemExit, match=r"^vlm: [^\n]+\Z"):
        shell("search", "x" * 10_000, "--folder", str(folder))
    assert not (tmp_path / "cache").exists()
    with pytest.raises(SystemExit, match="^vlm: .*nowhere.png"):
        shell("classify", str(folder / "nowhere.png"), "--names", "a, b")
    with pytest.raises(SystemExit):
        shell("search", "red")
