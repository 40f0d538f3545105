"""A file that may not be read is called that, and not damaged; what is written can be read as the umask says."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import picture, tiny_config, tiny_eyes, tiny_model
from training.data.features import FeatureStore
from vlm.chat.index import PictureIndex
from vlm.config import load_model_config
from vlm.errors import UserError
from vlm.inputs.audio import open_audio
from vlm.inputs.images import open_image
from vlm.inputs.zips import unpack_pictures
from vlm.model.adapter import load_eyes, save_adapter
from vlm.model.adapter_folder import find_adapter
from vlm.weights.tensor_files import load_tensors, save_tensors

NOBODY = 65534


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other accounts may enter, as pytest's own are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def stranger() -> Iterator[Callable[[], None]]:
    """Calling it makes the rest of a test run without the rights of root."""
    yield lambda: os.seteuid(NOBODY) if os.geteuid() == 0 else None
    if os.getuid() == 0:
        os.seteuid(0)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize(("umask", "files", "folders"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_what_is_written_follows_the_umask(tmp_path: Path, umask: int, files: int, folders: int) -> None:
    before = os.umask(umask)
    try:
        model = tiny_model(tags=2)
        assert model.eyes.tagger
        model.eyes.tagger.set_head(torch.nn.Linear(8, 2), ["yak", "emu"])
        save_adapter(model, tmp_path / "adapter", tiny_config(), {})
        store = FeatureStore(tmp_path, tiny_config().vision)
        store._write(["one"], torch.zeros(1, 4, 8))
        PictureIndex("tiny", 4).save(tmp_path / "index")
    finally:
        os.umask(before)
    modes = {path: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert len(modes) > 8
    assert {path: mode for path, mode in modes.items() if mode != (folders if path.is_dir() else files)} == {}


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("red.png", open_image),
        ("voice.wav", open_audio),
        ("pictures.zip", lambda file: list(unpack_pictures(file, file.parent, lambda size: None))),
        ("preset.yaml", lambda file: load_model_config(str(file))),
        ("index", lambda file: PictureIndex.load(file, "tiny")),
        ("adapter/projector.safetensors", lambda file: load_eyes(tiny_eyes(), file.parent)),
        ("adapter/config.yaml", lambda file: load_eyes_of(file.parent)),
        ("adapter/metrics.json", lambda file: find_adapter(str(file.parent))),
    ],
)
def test_a_file_that_may_not_be_read_names_that_as_the_cause(
    open_folder: Path, stranger: Callable[[], None], name: str, read: Callable[[Path], object]
) -> None:
    picture("red").save(open_folder / "red.png")
    save_adapter(tiny_model(), open_folder / "adapter", tiny_config(), {})
    for other in ("voice.wav", "pictures.zip", "preset.yaml", "index", "adapter/metrics.json"):
        (open_folder / other).write_bytes(np.zeros(100, np.uint8).tobytes())
    (open_folder / name).chmod(0)
    stranger()
    with pytest.raises(UserError, match="may not be read by this account") as told:
        read(open_folder / name)
    assert "damaged" not in str(told.value)


def load_eyes_of(folder: Path) -> None:
    from vlm.model.adapter_folder import adapter_config

    adapter_config(folder)


def test_tensors_come_back_as_they_were_written(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 2), "b": torch.randn(4).half()}
    save_tensors(tensors, tmp_path / "file", {"note": "x"})
    again = load_tensors(tmp_path / "file", tensors)
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())
