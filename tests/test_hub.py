"""An adapter is pushed to the hub with its card, comes back the same, and a hub that does not answer is one sentence."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import constants

from tests.hub import TOKEN, Hub, running_hub, use_hub
from tests.tiny import tiny_config, tiny_model
from training import push
from vlm.errors import UserError
from vlm.model.adapter import load_adapter, save_adapter
from vlm.model.adapter_fit import check_adapter
from vlm.model.adapter_folder import ADAPTERS, adapter_config, adapter_name, find_adapter

NAME = "someone/tiny-adapter"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """As training leaves it, with files beside it that are none of the adapter's."""
    folder = tmp_path / "adapter"
    save_adapter(tiny_model(), folder, tiny_config(), {"seed": 3}, torch.float32)
    (folder / "limits.md").write_text("Tiny.\n")
    (folder / "notes.txt").write_text("private")
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as server:
        use_hub(monkeypatch, server.address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.mark.slow
def test_what_is_pushed_is_the_adapter_with_its_card_and_comes_back_the_same(adapter: Path, hub: Hub) -> None:
    assert push.push(adapter, NAME, private=True) == f"{hub.address}/{NAME}"
    assert hub.private == {NAME: True}
    assert set(hub.files[NAME]) == {
        "README.md",
        "config.yaml",
        "limits.md",
        "lora/adapter_config.json",
        "lora/adapter_model.safetensors",
        "projector.safetensors",
    }
    hub.files[NAME] |= {"lora/adapter_model.bin": b"a pickle", "run.py": b"code"}  # which nobody fetches
    found = find_adapter(NAME)
    assert adapter_name(found) == NAME
    assert {str(path.relative_to(found)) for path in found.rglob("*") if path.is_file()} == {
        *hub.files[NAME]
    } - {"lora/adapter_model.bin", "run.py"}
    model = tiny_model(lora=False)
    load_adapter(model, found)
    weights = dict(model.named_parameters())
    for name, weight in tiny_model().named_parameters():
        assert torch.equal(weights[name], weight), name


def test_a_copy_from_before_is_used_without_the_hub(adapter: Path, hub: Hub) -> None:
    push.push(adapter, NAME)
    found = find_adapter(NAME)
    hub.shutdown()
    hub.server_close()
    assert find_adapter(NAME) == found
    (found / "projector.safetensors").unlink()
    with pytest.raises(UserError, match="could not be fetched from the hub.*copy it here"):
        find_adapter(NAME)
    with pytest.raises(UserError, match="could not be pushed.*hf auth login"):
        push.push(adapter, NAME)


def test_what_the_hub_does_not_have_is_one_sentence(hub: Hub) -> None:
    with pytest.raises(
        UserError, match=r"'no/such' is neither a folder here nor shipped \(.*embedded.*Check"
    ) as told:
        find_adapter("no/such")
    assert "\n" not in str(told.value)
    hub.files["some/data"] = {"README.md": b"# Data", "config.yaml": b"model: {}"}
    with pytest.raises(UserError, match=r"config\.yaml is damaged: it does not tell the model"):
        find_adapter("some/data")


def test_without_a_login_the_command_says_what_to_do(
    adapter: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(sys, "argv", ["push", str(adapter), NAME])
    with pytest.raises(SystemExit, match=r"^push: .*401.*hf auth login[^\n]*$"):
        push.main()
    assert hub.files == {}


def test_only_a_whole_adapter_without_pickles_is_pushed(adapter: Path, hub: Hub) -> None:
    with pytest.raises(UserError, match="no folder nowhere"):
        push.push(Path("nowhere"), NAME)
    with pytest.raises(UserError, match="user/name"):
        push.push(adapter, "name")
    (adapter / "lora" / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="pickles"):
        push.push(adapter, NAME)
    with pytest.raises(UserError, match="not an adapter folder"):
        push.push(adapter / "lora", NAME)
    assert hub.files == {}


def test_the_card_of_the_shipped_adapter_has_front_matter_scores_training_data_and_limits() -> None:
    folder = ADAPTERS / "embedded"
    _, front, text = push.model_card(folder, "someone/embedded", "cc-by-sa-4.0").split("---\n", 2)
    told = yaml.safe_load(front)
    assert told["base_model"] == "Qwen/Qwen2.5-Coder-1.5B-Instruct"
    assert (told["library_name"], told["license"]) == ("peft", "cc-by-sa-4.0")
    assert "lora" in told["tags"] and "easy-vqa" in told["datasets"]
    assert len(set(told["datasets"])) == len(told["datasets"])
    assert text.startswith("\n# embedded\n")
    assert "--adapter someone/embedded" in text
    for name, entry in json.loads((folder / "metrics.json").read_text()).items():
        share = entry["accuracy"]["share"]
        shown = f"CIDEr {100 * share:.1f}" if entry["measure"] == "cider" else f"{share:.1%}"
        assert f"| {name} | {entry['questions']:,} | {shown} (" in text
    trained = yaml.safe_load((folder / "config.yaml").read_text())["training"]
    assert f"Batches of {trained['batch_size']} conversations, seed {trained['seed']}" in text
    assert trained["data_card"] in text
    assert (folder / "limits.md").read_text() in text


def test_what_is_pushed_does_not_tell_where_the_weights_lay(tmp_path: Path, hub: Hub) -> None:
    mine = tmp_path / "home" / "Phi-3.5-mini-instruct"
    mine.mkdir(parents=True)
    config = replace(tiny_config(), language=replace(tiny_config().language, weights=str(mine)))
    save_adapter(tiny_model(), tmp_path / "adapter", config, {}, torch.float32)
    push.push(tmp_path / "adapter", NAME)
    assert not [file for file, content in hub.files[NAME].items() if str(tmp_path).encode() in content]
    assert adapter_config(find_adapter(NAME)).language.weights == "Phi-3.5-mini-instruct"
    kept = adapter_config(tmp_path / "adapter")  # python -m training.evaluate needs the folder
    assert kept.language.weights == str(mine)
    check_adapter(find_adapter(NAME), config)


def test_the_card_names_no_folder_of_this_machine_as_the_base(tmp_path: Path) -> None:
    config = replace(tiny_config(), language=replace(tiny_config().language, weights=str(tmp_path)))
    save_adapter(tiny_model(), tmp_path / "adapter", config, {}, torch.float32)
    _, front, text = push.model_card(tmp_path / "adapter", NAME).split("---\n", 2)
    assert "base_model" not in yaml.safe_load(front)
    assert yaml.safe_load(front)["library_name"] == "peft" and "The projector and the LoRA that let a" in text
    assert "was not evaluated" in text and "does not say how it was trained" in text


def test_the_card_tells_the_parts_that_there_are_and_names_the_base_without_its_commit(
    tmp_path: Path,
) -> None:
    weights = "Qwen/Qwen2.5-0.5B@" + "1" * 40
    config = tiny_config()
    config = replace(
        config, language=replace(config.language, weights=weights), lora=replace(config.lora, rank=0)
    )
    save_adapter(tiny_model(lora=False), tmp_path / "adapter", config, {}, torch.float32)
    _, front, text = push.model_card(tmp_path / "adapter", NAME).split("---\n", 2)
    told = yaml.safe_load(front)
    assert told["base_model"] == "Qwen/Qwen2.5-0.5B"
    assert "library_name" not in told and "lora" not in told["tags"]
    assert "The projector that lets Qwen/Qwen2.5-0.5B answer" in text and "LoRA" not in text.split("```")[0]
