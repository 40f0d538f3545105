"""The index of pictures: what is embedded, what is known from before, what is refused, and how it is kept."""

import gc
import json
import os
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from tests.tiny_aligner import TinyAligner, tiny_searcher
from vlm import Searcher, UserError
from vlm.chat import indexing, search
from vlm.chat.index import KIND, Entry, PictureIndex
from vlm.chat.indexing import BATCH, add_pictures
from vlm.inputs.images import MAX_PICTURE_BYTES, PictureFile, open_image


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def searcher() -> Searcher:
    return tiny_searcher()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, one of them in a folder of its own; and what is no picture."""
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    for place, colour in (("red.png", "red"), ("lime.png", "lime"), ("more/blue.png", "blue")):
        paint(photos / place, colour)
    (photos / "notes.txt").write_text("no picture")
    (photos / ".hidden").mkdir()
    paint(photos / ".hidden" / "yellow.png", "yellow")
    return photos


def paint(path: Path, colour: str) -> None:
    Image.new("RGB", (16, 16), colour).save(path)


def embedded(searcher: Searcher) -> int:
    assert isinstance(searcher.aligner, TinyAligner)
    return searcher.aligner.embedded


def names(index: PictureIndex) -> list[str]:
    return sorted(Path(entry.path).name for entry in index.entries)


def test_a_folder_is_indexed_with_the_folders_in_it_and_without_what_is_hidden(
    searcher: Searcher, folder: Path
) -> None:
    index = searcher.index(folder)
    assert names(index) == ["blue.png", "lime.png", "red.png"]
    assert index.vectors.shape == (3, 8)
    assert torch.allclose(index.vectors.norm(dim=1), torch.ones(3))
    assert index.report.sentences(len(index)) == ["3 pictures in the index (3 new)."]


def test_a_second_time_nothing_is_read_or_embedded(
    searcher: Searcher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = searcher.index(folder)
    again = tiny_searcher()
    monkeypatch.setattr(indexing, "read_entry", lambda file: pytest.fail(f"{file} was read"))
    second = again.index(folder)
    assert embedded(again) == 0
    assert second.entries == first.entries
    assert torch.equal(second.vectors, first.vectors)
    assert second.report.sentences(3) == ["3 pictures in the index."]


def test_a_changed_folder_is_said_and_only_what_is_new_is_embedded(searcher: Searcher, folder: Path) -> None:
    searcher.index(folder)
    paint(folder / "red.png", "yellow")
    os.utime(folder / "red.png", (1, 1))
    (folder / "lime.png").unlink()
    paint(folder / "cyan.png", "cyan")
    again = tiny_searcher()
    index = again.index(folder)
    assert names(index) == ["blue.png", "cyan.png", "red.png"]
    assert index.report.sentences(3) == ["3 pictures in the index (1 new, 1 changed, 1 removed)."]
    assert embedded(again) == 2
    assert Path(again.search("yellow", index=index)[0].path).name == "red.png"
    assert again.index(folder).report.unchanged == 3


def test_a_renamed_and_a_touched_picture_are_known_by_their_content(searcher: Searcher, folder: Path) -> None:
    searcher.index(folder)
    (folder / "red.png").rename(folder / "rouge.png")
    os.utime(folder / "lime.png", (1, 1))
    again = tiny_searcher()
    index = again.index(folder)
    assert names(index) == ["blue.png", "lime.png", "rouge.png"]
    assert embedded(again) == 0
    assert index.report.sentences(3) == ["3 pictures in the index (1 new, 1 removed)."]
    assert Path(again.search("red", index=index)[0].path).name == "rouge.png"


def test_pictures_that_are_there_twice_are_kept_once_and_said(searcher: Searcher, folder: Path) -> None:
    (folder / "again.png").write_bytes((folder / "red.png").read_bytes())
    index = searcher.index(folder)
    assert len(index) == 3
    assert "1 has the same content as one already there (red.png)." in index.report.sentences(3)


def test_what_was_embedded_is_kept_now_and_then_before_the_end(
    searcher: Searcher, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "BATCH", 1)
    monkeypatch.setattr(search, "KEPT_EVERY", 0.0)
    kept, file = [], tmp_path / "index.safetensors"

    def look(done: int, total: int) -> None:
        kept.append(len(searcher.load_index(file)) if file.is_file() else 0)

    index = searcher.index(folder, file, look)
    assert kept == list(range(len(index)))  # as a kill at each of these moments would find it


def test_a_file_that_is_named_twice_is_indexed_once(searcher: Searcher, folder: Path, tmp_path: Path) -> None:
    twice = [folder / "red.png", folder / "red.png"]
    for _ in range(2):
        assert len(searcher.index(twice, tmp_path / "kept.safetensors")) == 1


def test_broken_pictures_are_counted_named_and_skipped(searcher: Searcher, folder: Path) -> None:
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / "cut.png").write_bytes((folder / "red.png").read_bytes()[:40])
    (folder / "huge.png").write_bytes(bytes(MAX_PICTURE_BYTES + 1))
    (folder / "empty.jpg").touch()
    index = searcher.index(folder)
    assert len(index) == 3
    said = index.report.sentences(len(index))
    assert "4 cannot be read here and were left out (bad.png, cut.png, empty.jpg, ...)." in said
    for name in ("cut.png", "huge.png", "empty.jpg"):
        (folder / name).unlink()
    left_out = " ".join(searcher.index(folder).report.sentences(3))
    assert '1 was left out. The picture "bad.png" is not a picture' in left_out


def test_a_folder_without_pictures_is_refused_in_a_sentence(searcher: Searcher, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no folder .*nowhere"):
        searcher.index(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="There are no pictures in the folder .*empty"):
        searcher.index(tmp_path / "empty")
    (tmp_path / "empty" / "bad.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="None of the pictures could be read.*bad.png"):
        searcher.index(tmp_path / "empty")
    with pytest.raises(UserError, match="no pictures to index"):
        searcher.index([])


def test_however_many_pictures_there_are_only_one_batch_is_open(
    searcher: Searcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(tmp_path / "red.png", "red")
    alive: list[weakref.ref[Image.Image]] = []
    most = 0

    def opened(path: Path, name: str) -> Image.Image:
        nonlocal most
        picture = Image.new("RGB", (4, 4))
        alive[:] = [each for each in alive if each()] + [weakref.ref(picture)]
        most = max(most, len(alive))
        return picture

    monkeypatch.setattr(indexing, "open_image", opened)
    monkeypatch.setattr(indexing, "read_entry", lambda file: Entry(file.name, file.name))
    files = [PictureFile(tmp_path / "red.png", str(number)) for number in range(1_000)]
    gc.collect()
    index = searcher.new_index()
    for _ in add_pictures(index, files, searcher.aligner.embed_pictures):
        pass
    assert len(index) == 1_000
    assert most <= 2 * BATCH  # the last batch may not have been let go of yet


def test_what_was_embedded_before_a_stop_stays_and_is_saved(searcher: Searcher, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for shade in range(3 * BATCH):
        Image.new("RGB", (4, 4), (shade, 0, 0)).save(tmp_path / "many" / f"{shade:02}.png")

    def stop(done: int, total: int) -> None:
        assert total == 3 * BATCH
        if done == 2 * BATCH:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        searcher.index(tmp_path / "many", progress=stop)
    again = tiny_searcher()
    assert len(again.index(tmp_path / "many")) == 3 * BATCH
    assert embedded(again) == BATCH
    for path in (tmp_path / "many").iterdir():  # a sync, which sets their times
        os.utime(path, (1, 1))
    with pytest.raises(KeyboardInterrupt):
        tiny_searcher().index(tmp_path / "many", progress=stop)
    once_more = tiny_searcher()
    assert len(once_more.index(tmp_path / "many")) == 3 * BATCH
    assert embedded(once_more) == 0


def test_a_file_with_the_index_of_other_pictures_is_not_written_over(
    searcher: Searcher, folder: Path, tmp_path: Path
) -> None:
    file, other = tmp_path / "kept.safetensors", tmp_path / "other"
    searcher.index(folder, file)
    before = file.read_bytes()
    other.mkdir()
    paint(other / "pink.png", "pink")
    with pytest.raises(UserError, match=r'"kept\.safetensors" is of other pictures, such as'):
        searcher.index(other, file)
    assert file.read_bytes() == before
    folder.rename(tmp_path / "moved")
    again = tiny_searcher()
    assert len(again.index(tmp_path / "moved", file)) == 3 and embedded(again) == 0


def test_what_another_thread_has_added_meanwhile_is_in_an_index_once() -> None:
    index, vectors = PictureIndex("tiny", 2), torch.eye(2)
    index.add([Entry("a", "1")], vectors[:1])
    index.add([Entry("b", "1"), Entry("c", "2")], vectors)
    assert [entry.path for entry in index.entries] == ["a", "c"]
    assert torch.equal(index.vectors, vectors)


def test_an_index_is_saved_and_loaded_as_it_was(searcher: Searcher, folder: Path, tmp_path: Path) -> None:
    index = searcher.index(folder, tmp_path / "mine" / "photos.safetensors")
    file = tmp_path / "mine" / "photos.safetensors"
    loaded = searcher.load_index(file)
    assert list(loaded.entries) == list(index.entries)
    assert torch.equal(loaded.vectors, index.vectors)
    assert [each.name for each in file.parent.iterdir()] == [file.name]
    with safe_open(file, framework="pt") as opened:
        assert json.loads(opened.metadata()["entries"])[0][0].endswith("lime.png")


def test_an_index_of_another_aligner_is_refused_and_both_are_named(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "photos.safetensors"
    tiny_searcher("first").index(folder, file)
    before = file.read_bytes()
    for refused in (
        tiny_searcher("second").load_index,
        lambda file: tiny_searcher("second").index(folder, file),
    ):
        with pytest.raises(UserError, match="made by the aligner first, and the one in use is second"):
            refused(file)
    assert file.read_bytes() == before
    assert len(tiny_searcher("second").index(folder)) == 3  # the cache has an index for each


def written(path: Path, entries: Any, vectors: torch.Tensor, kind: str = KIND) -> Path:
    metadata = {"kind": kind, "aligner": "tiny", "entries": json.dumps(entries)}
    save_file({"vectors": vectors}, path, metadata)
    return path


ENTRY = ["a.png", "abc", 1, 1]
UNIT = torch.eye(8)[:1].contiguous()


@pytest.mark.parametrize(
    ("entries", "vectors", "kind"),
    [
        ([ENTRY], UNIT, "something else"),
        ([ENTRY, ["b.png", "abd", 1, 1]], UNIT, KIND),
        ([ENTRY, ENTRY], torch.cat([UNIT, UNIT]), KIND),
        ([["a.png"]], UNIT, KIND),
        ([], torch.zeros(0, 8), KIND),
        ({"a": 1}, UNIT, KIND),
        (7, UNIT, KIND),
        ([ENTRY], UNIT * float("nan"), KIND),
        ([ENTRY], UNIT * 5, KIND),
        ([ENTRY], UNIT.double(), KIND),
        ([ENTRY], UNIT[0].contiguous(), KIND),
        ([ENTRY], torch.eye(4)[:1].contiguous(), KIND),
    ],
)
def test_a_damaged_index_is_refused_in_a_sentence(
    searcher: Searcher, tmp_path: Path, entries: Any, vectors: torch.Tensor, kind: str
) -> None:
    file = written(tmp_path / "photos.safetensors", entries, vectors, kind)
    with pytest.raises(UserError, match="photos.safetensors"):
        searcher.load_index(file)


def test_what_is_no_index_at_all_is_refused_in_a_sentence(searcher: Searcher, tmp_path: Path) -> None:
    (tmp_path / "photos.safetensors").write_bytes(b"no index")
    with pytest.raises(UserError, match="no index that can be read"):
        searcher.load_index(tmp_path / "photos.safetensors")
    with pytest.raises(UserError, match="There is no index"):
        searcher.load_index(tmp_path / "nowhere.safetensors")


def test_a_damaged_file_of_the_cache_is_made_again(searcher: Searcher, folder: Path, cache: Path) -> None:
    searcher.index(folder)
    (file,) = (cache / "indexes").iterdir()
    file.write_bytes(b"cut off")
    assert len(searcher.index(folder)) == 3
    assert len(searcher.load_index(file)) == 3


def test_a_cache_that_cannot_be_written_does_not_stop_a_search(
    searcher: Searcher, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "file"))
    assert searcher.search("red", index=searcher.index(folder))
    with pytest.raises(UserError, match="could not be written"):
        searcher.index(folder, tmp_path / "file" / "photos.safetensors")


def test_a_name_that_is_no_text_is_kept_as_every_other(searcher: Searcher, tmp_path: Path) -> None:
    photos = tmp_path / os.fsdecode(b"f\xf6lder")
    try:
        photos.mkdir()
    except OSError:
        pytest.skip("this disk's names are text")
    path = photos / os.fsdecode(b"caf\xe9.png")
    paint(path, "red")
    assert names(searcher.index(photos)) == [path.name]
    searcher.index(photos)
    assert embedded(searcher) == 1


def test_the_nearest_are_found_exactly_and_in_order() -> None:
    index = PictureIndex("tiny", 16)
    vectors = torch.nn.functional.normalize(torch.randn(500, 16), dim=1)
    for start in range(0, 500, 100):  # it grows in parts
        rows = range(start, start + 100)
        index.add([Entry(str(row), str(row)) for row in rows], vectors[start : start + 100])
    query = vectors[123]
    found = index.search(query, 10)
    expected = (vectors @ query).argsort(descending=True)[:10].tolist()
    assert [int(each.path) for each in found] == expected
    assert found[0].path == "123"
    assert found[0].score == pytest.approx(1.0)
    assert len(index.search(query, 9_999)) == 500


def test_the_index_of_a_folder_is_kept_by_folder_and_aligner(folder: Path) -> None:
    assert search.cached_file(folder, "a") == search.cached_file(folder / "more" / "..", "a")
    assert search.cached_file(folder, "a") != search.cached_file(folder, "b")
    assert search.cached_file(folder, "a") != search.cached_file(folder / "more", "a")


def test_the_tiny_aligner_sees_colours() -> None:
    aligner = TinyAligner()
    pictures = [open_image(Image.new("RGB", (4, 4), colour)) for colour in ("red", "blue")]
    similar = aligner.embed_pictures(pictures) @ aligner.embed_texts(["a red car", "a blue car"]).T
    assert similar.argmax(dim=1).tolist() == [0, 1]
