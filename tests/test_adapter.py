"""The adapter folder: saved and loaded it gives the same model; what does not fit or is damaged is refused."""

import dataclasses
import errno
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from tests.tiny import colour_batch, picture, shake_lora, tiny_config, tiny_eyes, tiny_model
from vlm.config import AnswersConfig, ModelConfig, load_model_config
from vlm.config_reader import PartConfig
from vlm.errors import UserError
from vlm.model import adapter as adapters
from vlm.model.adapter import load_adapter, load_eyes, lora_folder, restore_adapter, save_adapter
from vlm.model.adapter_fit import check_adapter, model_config_of, served_by, with_all_settings
from vlm.model.adapter_folder import (
    TAGS_FILE,
    adapter_config,
    find_adapter,
    fusion_file,
    read_description,
    read_metrics,
)
from vlm.model.vlm import VisionLanguageModel
from vlm.weights.tensor_files import save_tensors


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    model = tiny_model()
    shake_lora(model)
    save_adapter(model, tmp_path / "adapter", tiny_config(), {"seed": 3}, torch.float32)
    return tmp_path / "adapter"


def logits(model: VisionLanguageModel) -> torch.Tensor:
    batch, features = colour_batch(model, {"red": "r", "blue": "b"})
    with torch.no_grad():
        return model.eval().language.model(inputs_embeds=model.arrange(batch, features).embeds).logits


def test_a_loaded_adapter_gives_identical_logits(adapter: Path) -> None:
    trained, served, resumed = tiny_model(), tiny_model(lora=False), tiny_model()
    shake_lora(trained)
    torch.nn.init.normal_(trained.connector.layers[0].weight)
    trained.connector.standardise(torch.randn(20, 4, 8))
    save_adapter(trained, adapter, tiny_config(), {}, torch.float32)
    before = logits(served)
    load_adapter(served, adapter)
    restore_adapter(resumed, adapter)
    expected = logits(trained)
    assert not torch.allclose(before, expected, atol=0.1)
    assert torch.equal(logits(served), expected)
    assert torch.equal(logits(resumed), expected)


def test_the_eyes_alone_are_loaded_from_the_same_folder(adapter: Path) -> None:
    """As llama.cpp is served: no language model in torch."""
    whole, eyes = tiny_model(lora=False), tiny_eyes()
    load_adapter(whole, adapter)
    eyes.vision.load_state_dict(whole.eyes.vision.state_dict())
    load_eyes(eyes, adapter)
    (one,), (other,) = eyes.see([picture("red")]), whole.eyes.see([picture("red")])
    assert torch.equal(one.visual_tokens, other.visual_tokens)
    assert lora_folder(adapter) == adapter / "lora"


def test_what_is_shipped_is_half_the_size_of_what_training_goes_on_from(adapter: Path) -> None:
    save_adapter(tiny_model(), adapter.parent / "shipped", tiny_config(), {})
    for part, name in (("", "projector.safetensors"), ("lora", "adapter_model.safetensors")):
        shipped = load_file(adapter.parent / "shipped" / part / name)
        trained = load_file(adapter / part / name)
        assert shipped.keys() == trained.keys()
        assert {each.dtype for each in shipped.values()} == {torch.float16}
        assert {each.dtype for each in trained.values()} == {torch.float32}


def test_the_folder_holds_config_projector_and_lora_and_no_pickle(adapter: Path) -> None:
    files = {str(path.relative_to(adapter)) for path in adapter.rglob("*") if path.is_file()}
    assert files == {
        "config.yaml",
        "projector.safetensors",
        "lora/adapter_config.json",
        "lora/adapter_model.safetensors",
    }
    assert adapter_config(adapter) == with_all_settings(tiny_config())
    lora = json.loads((adapter / "lora/adapter_config.json").read_text())
    assert lora["r"] == 4
    assert lora["base_model_name_or_path"] == tiny_config().language.weights  # never a path of this machine


def test_saving_again_replaces_the_folder_and_leaves_nothing_behind(adapter: Path) -> None:
    save_adapter(tiny_model(), adapter, tiny_config(), {"seed": 4}, torch.float32)
    assert read_description(adapter)["training"] == {"seed": 4}
    assert [path.name for path in adapter.parent.iterdir()] == ["adapter"]


def test_an_adapter_of_another_model_is_refused_with_both_named(adapter: Path) -> None:
    config = tiny_config()
    other = dataclasses.replace(config, vision=dataclasses.replace(config.vision, image_size=256))
    with pytest.raises(UserError, match=r"image_size=320.*image_size=256"):
        check_adapter(adapter, other)
    check_adapter(
        adapter, dataclasses.replace(config, language=dataclasses.replace(config.language, dtype="float32"))
    )


@pytest.mark.parametrize(
    "change",
    [{"connector": PartConfig("mlp", {"hidden": 9})}, {"answers": AnswersConfig("Look.")}, {"name": "mine"}],
)
def test_without_a_preset_an_adapter_is_served_by_what_it_was_trained_for(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    assert model_config_of(None, "embedded")[0] == model_config_of("embedded", None)[0]
    own = dataclasses.replace(load_model_config("embedded"), **change)
    save_adapter(tiny_model(), tmp_path / "adapter", own, {})
    assert served_by(tmp_path / "adapter") == with_all_settings(own)  # though a shipped preset has its name


@pytest.mark.parametrize("part", ["vision", "language"])
def test_an_adapter_fits_the_same_weights_on_the_hub_and_in_a_folder_of_that_name(
    tmp_path: Path, part: str
) -> None:
    def served_with(weights: str) -> ModelConfig:
        config = tiny_config()
        changed = dataclasses.replace(getattr(config, part), weights=weights)
        return dataclasses.replace(config, **{part: changed})

    save_adapter(tiny_model(), tmp_path / "adapter", served_with("/data/models/Phi-3.5-mini-instruct"), {})
    check_adapter(tmp_path / "adapter", served_with("microsoft/Phi-3.5-mini-instruct"))
    with pytest.raises(UserError, match="does not fit"):
        check_adapter(tmp_path / "adapter", served_with("microsoft/Phi-3.5-vision-instruct"))


PARTS = ["projector.safetensors", "lora/adapter_model.safetensors"]


@pytest.fixture
def tagged(tmp_path: Path) -> Path:
    """An adapter with a head for the nouns of its pictures."""
    model = tiny_model(tags=2)
    assert model.eyes.tagger
    model.eyes.tagger.set_head(torch.nn.Linear(8, 2), ["yak", "emu"])
    save_adapter(model, tmp_path / "tagged", tiny_config(), {}, torch.float32)
    return tmp_path / "tagged"


def test_the_head_of_the_tagger_goes_with_the_adapter(tagged: Path) -> None:
    served = tiny_eyes(tags=2)
    load_eyes(served, tagged)
    assert served.tagger and served.tagger.nouns == ["yak", "emu"]
    assert {"yak", "emu"} & {each.split()[0] for each in served.see([picture("red")])[0].tags.split(", ")}
    load_eyes(tiny_eyes(), tagged)  # where nobody asks for tags


def test_a_copy_without_the_head_of_its_tagger_is_refused(tagged: Path, tmp_path: Path) -> None:
    assert find_adapter(str(tagged)) == tagged
    (tagged / TAGS_FILE).unlink()
    with pytest.raises(UserError, match=r"tags\.safetensors missing"):
        find_adapter(str(tagged))
    save_adapter(tiny_model(lora=False, tags=2), tmp_path / "without", tiny_config(), {})
    assert not (tmp_path / "without" / TAGS_FILE).exists() and "tagged" not in read_description(
        tmp_path / "without"
    )


@pytest.mark.parametrize("part", [*PARTS, "lora/adapter_config.json", TAGS_FILE])
@pytest.mark.parametrize("damage", ["half", "empty", "pickle", "absent"])
def test_a_damaged_part_is_a_plain_message(tagged: Path, part: str, damage: str) -> None:
    content = (tagged / part).read_bytes()
    if damage == "absent":
        (tagged / part).unlink()
    elif damage == "pickle":
        torch.save({"weight": torch.zeros(1)}, tagged / part)
    else:
        (tagged / part).write_bytes(content[: len(content) // 2] if damage == "half" else b"")
    if (part, damage) == (TAGS_FILE, "absent"):  # an adapter without a head has no such file
        load_adapter(tiny_model(lora=False, tags=2), tagged)
        return
    with pytest.raises(UserError, match="damaged or incomplete.*again") as told:
        load_adapter(tiny_model(lora=False, tags=2), tagged)
    assert "\n" not in str(told.value)


def parted(folder: Path, rank: int, fusion: PartConfig) -> Path:
    """An adapter of a model with or without a LoRA, and with a fusion."""
    model = tiny_model(lora=bool(rank), fusion=fusion)
    lora = dataclasses.replace(tiny_config().lora, rank=rank)
    config = dataclasses.replace(tiny_config(), lora=lora, fusion=fusion)
    save_adapter(model, folder, config, {}, torch.float32)
    return folder


CROSS = PartConfig("cross-attention", {"every": 2, "heads": 2, "head_size": 8})


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize(
    ("fusion", "weights"),
    [
        (PartConfig("prefix"), False),
        (CROSS, True),
        (PartConfig("fused"), False),
        (PartConfig("fused", {"mode": "gate"}), True),
    ],
)
def test_the_folder_holds_exactly_the_parts_there_are(
    tmp_path: Path, rank: int, fusion: PartConfig, weights: bool
) -> None:
    folder = parted(tmp_path / "adapter", rank, fusion)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    expected = {"config.yaml", "projector.safetensors"}
    expected |= {"fusion.safetensors"} if weights else set()
    expected |= {"lora/adapter_config.json", "lora/adapter_model.safetensors"} if rank else set()
    assert files == expected
    assert find_adapter(str(folder)) == folder
    assert (lora_folder(folder) is None) == (rank == 0)
    assert (fusion_file(folder) is None) == (not weights)
    served, resumed = tiny_model(lora=False, fusion=fusion), tiny_model(lora=bool(rank), fusion=fusion)
    load_adapter(served, folder)
    restore_adapter(resumed, folder)
    assert served.language.has_lora == bool(rank)
    assert torch.equal(logits(served), logits(resumed))


def test_a_missing_or_foreign_part_is_named(tmp_path: Path, adapter: Path) -> None:
    crossed = parted(tmp_path / "crossed", 0, CROSS)
    (crossed / "fusion.safetensors").rename(adapter / "fusion.safetensors")
    with pytest.raises(
        UserError, match="There is no adapter 'runs/mine/adapter': no folder here, and none of"
    ):
        find_adapter("runs/mine/adapter")
    with pytest.raises(UserError, match="is not an adapter folder: fusion.safetensors missing"):
        find_adapter(str(crossed))
    with pytest.raises(
        UserError, match="holds fusion.safetensors, and the model in its config.yaml has no such"
    ):
        find_adapter(str(adapter))
    plain = parted(tmp_path / "plain", 0, PartConfig("prefix"))
    (adapter / "lora").rename(plain / "lora")
    with pytest.raises(
        UserError, match="holds lora/adapter_config.json, lora/adapter_model.safetensors, and"
    ):
        find_adapter(str(plain))


def test_a_fusion_of_another_shape_is_a_plain_message(tmp_path: Path) -> None:
    crossed = parted(tmp_path / "crossed", 0, CROSS)
    other = PartConfig("cross-attention", CROSS.settings | {"heads": 4})
    with pytest.raises(UserError, match="damaged or incomplete"):
        load_adapter(tiny_model(lora=False, fusion=other), crossed)
    with pytest.raises(UserError, match="does not fit the preset 'tiny'"):
        check_adapter(crossed, dataclasses.replace(tiny_config(), fusion=other))


def rewrite(file: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    with safe_open(file, framework="pt") as stored:
        metadata = stored.metadata()
    save_tensors(change(load_file(file)), file, metadata)


def spoiled(tensors: dict[str, torch.Tensor], value: float) -> dict[str, torch.Tensor]:
    """One value of the last tensor is another."""
    name = max(tensors)
    changed = tensors[name].clone()
    changed.view(-1)[-1] = value
    return tensors | {name: changed}


READABLE_DAMAGE: dict[str, Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]] = {
    "NaN": lambda tensors: spoiled(tensors, math.nan),
    "infinite": lambda tensors: spoiled(tensors, -math.inf),
    "missing": lambda tensors: {name: tensors[name] for name in sorted(tensors)[1:]},
    "foreign": lambda tensors: tensors | {"base_model.model.lm_head.lora_A.weight": torch.zeros(2, 2)},
    "other shape": lambda tensors: tensors | {max(tensors): torch.zeros(3, 3)},
    "whole numbers": lambda tensors: {name: tensor.to(torch.int64) for name, tensor in tensors.items()},
}


@pytest.mark.parametrize("part", [*PARTS, TAGS_FILE])
@pytest.mark.parametrize("damage", READABLE_DAMAGE)
def test_weights_that_are_damaged_but_readable_are_refused(tagged: Path, part: str, damage: str) -> None:
    rewrite(tagged / part, READABLE_DAMAGE[damage])
    with pytest.raises(UserError, match="damaged or incomplete.*again") as told:
        load_adapter(tiny_model(lora=False, tags=2), tagged)
    assert "\n" not in str(told.value)
    if part != TAGS_FILE:
        with pytest.raises(UserError, match="damaged or incomplete"):
            restore_adapter(tiny_model(), tagged)


@pytest.mark.parametrize("nouns", [None, "5", '["yak", 5]', '["yak"]', '"yak"'])
def test_a_head_with_odd_nouns_is_refused(tagged: Path, nouns: str | None) -> None:
    save_tensors(load_file(tagged / TAGS_FILE), tagged / TAGS_FILE, {"nouns": nouns} if nouns else None)
    with pytest.raises(UserError, match="damaged or incomplete"):
        load_eyes(tiny_eyes(tags=2), tagged)


@pytest.mark.parametrize(
    "content", ["", "5", "- a", "model: 3", "training: {}", "model: {}\n", "{", "model: {hidden: 3}\ntraining: {}",
                "model: {vision: {image_size: big}}\ntraining: {}", "model: {lora: {rank: 1.5}}\ntraining: {}",
                "model: {lora: {targets: q_proj}}\ntraining: {}", "model: {vision: [1]}\ntraining: {}", "\udcff"],
)  # fmt: skip
def test_an_odd_config_is_one_sentence(adapter: Path, content: str) -> None:
    (adapter / "config.yaml").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"config\.yaml") as told:
        model_config_of("embedded", str(adapter))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "content", ["", "5", "[]", '{"a": 1}', '{"a": {}}', '{"a": {"questions": 5}}', "{", "\udcff",
                '{"a": {"questions": 5, "command": "x", "accuracy": 0.5}}',
                '{"a": {"questions": 5, "command": "x", "accuracy": {"share": "x"}}}',
                '{"a": {"questions": 5, "command": "x", "by": {"task": {"name": 3}}}}',
                '{"a": {"questions": 5, "command": "x", "by": {"task": 3}}}'],
)  # fmt: skip
def test_odd_metrics_are_one_sentence(adapter: Path, content: str) -> None:
    (adapter / "metrics.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"metrics\.json is damaged.*remove it") as told:
        find_adapter(str(adapter))
    assert "\n" not in str(told.value)


def test_the_shipped_metrics_are_sound_and_an_adapter_may_have_none(adapter: Path) -> None:
    assert read_metrics(find_adapter("embedded"))
    assert read_metrics(find_adapter(str(adapter))) == {}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"init_lora_weights": "pissa"}, "no plain LoRA: its init_lora_weights is 'pissa'"),
        ({"init_lora_weights": "no such"}, "init_lora_weights is 'no such'"),
        ({"init_lora_weights": ["a"]}, "init_lora_weights"),
        ({"use_dora": True}, "sets use_dora"),
        ({"modules_to_save": ["lm_head"]}, "sets modules_to_save"),
        ({"layer_replication": [[0, 1]]}, "sets layer_replication"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"r": 0}, "rank r .* is 0"),
        ({"r": "4"}, "rank r .* is '4'"),
        ({"r": 8}, "the rank 8, and its config.yaml 4"),
        ({"lora_alpha": None}, "lora_alpha .* is None"),
        ({"lora_alpha": 80}, "the alpha 80, and its config.yaml 8"),
        ({"target_modules": "all-linear"}, "no list of names"),
        ({"target_modules": ["q_proj"]}, "the targets"),
    ],
)
def test_what_is_more_or_other_than_the_lora_of_the_config_is_refused(
    adapter: Path, change: dict, told: str
) -> None:
    file = adapter / "lora/adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=told):
        lora_folder(adapter)


@pytest.mark.parametrize("content", ["[]", "5", "null", '"LORA"'])
def test_an_adapter_config_that_is_no_table_is_refused(adapter: Path, content: str) -> None:
    (adapter / "lora/adapter_config.json").write_text(content)
    with pytest.raises(UserError, match="no plain LoRA"):
        lora_folder(adapter)


@pytest.mark.parametrize("change", [{"peft_type": "PROMPT_TUNING"}, {"megatron_config": {"a": 1}}])
def test_an_adapter_config_that_is_more_than_a_lora_is_refused(adapter: Path, change: dict) -> None:
    file = adapter / "lora/adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match="no plain LoRA"):
        load_adapter(tiny_model(lora=False), adapter)
    with pytest.raises(UserError, match="no plain LoRA"):
        lora_folder(adapter)


@pytest.mark.parametrize(
    "name", ["projector.pt", "tags.pkl", "lora/adapter_model.bin", "sub/weights.ckpt", "PYTORCH_MODEL.BIN"]
)
def test_a_pickle_anywhere_in_the_folder_is_refused(adapter: Path, name: str) -> None:
    (adapter / name).parent.mkdir(exist_ok=True)
    (adapter / name).write_bytes(b"")
    with pytest.raises(UserError, match=f"holds {Path(name).name}: pickles.*Remove"):
        find_adapter(str(adapter))
    (adapter / name).unlink()
    assert find_adapter(str(adapter)) == adapter


@pytest.mark.parametrize("part", PARTS)
def test_a_folder_without_a_part_is_refused(adapter: Path, part: str) -> None:
    (adapter / part).unlink()
    with pytest.raises(UserError, match=f"{part} missing"):
        find_adapter(str(adapter))


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("error", [FULL, SafetensorError("I/O error: No space left on device (os error 28)")])
@pytest.mark.parametrize("written", [0, 1])
def test_a_disk_that_is_full_leaves_the_old_folder_and_nothing_else(
    adapter: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, written: int
) -> None:
    before = {file: file.read_bytes() for file in adapter.rglob("*") if file.is_file()}
    saved = []

    def save(tensors: dict, file: Path, metadata: dict | None = None) -> None:
        if len(saved) == written:
            file.write_bytes(b"half")
            raise error
        saved.append(file)
        save_tensors(tensors, file, metadata)

    monkeypatch.setattr(adapters, "save_tensors", save)
    with pytest.raises(type(error), match="No space left"):
        save_adapter(tiny_model(), adapter, tiny_config(), {}, torch.float32)
    assert {file: file.read_bytes() for file in adapter.rglob("*") if file.is_file()} == before
    assert [path.name for path in adapter.parent.iterdir()] == ["adapter"]


def test_where_the_new_folder_cannot_take_its_place_the_old_one_goes_back(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def rename_or_not(self: Path, target: Path) -> Path:
        if (self / "config.yaml").is_file() and read_description(self)["training"] == {"seed": 4}:
            raise FULL
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_or_not)
    with pytest.raises(OSError, match="No space left"):
        save_adapter(tiny_model(), adapter, tiny_config(), {"seed": 4}, torch.float32)
    assert read_description(adapter)["training"] == {"seed": 3}
    assert [path.name for path in adapter.parent.iterdir()] == ["adapter"]


def test_an_unknown_adapter_names_the_shipped_ones() -> None:
    with pytest.raises(UserError, match="embedded"):
        find_adapter("no-such-adapter")
