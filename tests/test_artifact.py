"""The adapter folder: saved and loaded it gives the same model; what does not fit or is damaged is refused."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from tests.test_model import colours, shake_lora
from tests.tiny import tiny_config, tiny_model
from vlm.artifact import adapter_config, check_adapter, find_adapter, load_adapter, save_adapter
from vlm.errors import UserError


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    model = tiny_model()
    shake_lora(model)
    save_adapter(model, tmp_path / "adapter", tiny_config(), {"seed": 3}, {"loss": 0.5}, torch.float32)
    return tmp_path / "adapter"


def test_a_loaded_adapter_gives_identical_losses(adapter: Path) -> None:
    trained, fresh = tiny_model(), tiny_model(lora=False)
    shake_lora(trained)
    torch.manual_seed(0)
    save_adapter(trained, adapter, tiny_config(), {}, {}, torch.float32)
    load_adapter(fresh, adapter)
    batch, features = colours(trained, {"red": "r", "blue": "b"})
    trained.eval(), fresh.eval()
    with torch.no_grad():
        expected = trained(**batch._asdict(), patch_features=features)["loss"]
        assert torch.equal(fresh(**batch._asdict(), patch_features=features)["loss"], expected)


def test_the_folder_holds_config_projector_lora_and_metrics_and_no_pickle(adapter: Path) -> None:
    files = {str(path.relative_to(adapter)) for path in adapter.rglob("*") if path.is_file()}
    assert files == {
        "config.yaml",
        "metrics.json",
        "projector.safetensors",
        "lora/adapter_config.json",
        "lora/adapter_model.safetensors",
    }
    assert adapter_config(adapter) == tiny_config()
    lora = json.loads((adapter / "lora/adapter_config.json").read_text())
    assert lora["r"] == 4
    assert lora["base_model_name_or_path"] == tiny_config().language.weights  # never a path of this machine


def test_saving_again_replaces_the_folder_and_leaves_nothing_behind(adapter: Path) -> None:
    save_adapter(tiny_model(), adapter, tiny_config(), {}, {"loss": 0.1}, torch.float32)
    assert json.loads((adapter / "metrics.json").read_text()) == {"loss": 0.1}
    assert [path.name for path in adapter.parent.iterdir()] == ["adapter"]


def test_an_adapter_of_another_model_is_refused_with_both_named(adapter: Path) -> None:
    config = tiny_config()
    other = dataclasses.replace(config, vision=dataclasses.replace(config.vision, grid=8))
    with pytest.raises(UserError, match=r"grid=4.*grid=8"):
        check_adapter(adapter, other)
    check_adapter(
        adapter, dataclasses.replace(config, language=dataclasses.replace(config.language, dtype="float32"))
    )


@pytest.mark.parametrize("name", ["projector.safetensors", "lora/adapter_model.safetensors"])
def test_a_truncated_file_is_a_plain_message(adapter: Path, name: str) -> None:
    content = (adapter / name).read_bytes()
    (adapter / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="damaged or incomplete"):
        load_adapter(tiny_model(lora=False), adapter)


def test_a_missing_part_and_a_pickle_are_refused(adapter: Path) -> None:
    (adapter / "weights.pt").write_bytes(b"")
    with pytest.raises(UserError, match="pickles"):
        find_adapter(str(adapter))
    (adapter / "weights.pt").unlink()
    assert find_adapter(str(adapter)) == adapter
    (adapter / "projector.safetensors").unlink()
    with pytest.raises(UserError, match=r"projector\.safetensors missing"):
        find_adapter(str(adapter))


def test_an_unknown_adapter_names_the_shipped_ones() -> None:
    with pytest.raises(UserError, match="embedded"):
        find_adapter("no-such-adapter")
