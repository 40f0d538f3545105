"""Adapter folder <-> model: the weights of each part, loaded to serve or to train on, and saved."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from vlm.config import ModelConfig
from vlm.config_reader import to_dict
from vlm.errors import UserError, plain_load_errors
from vlm.model.adapter_fit import with_all_settings
from vlm.model.adapter_folder import (
    CONNECTOR_FILE,
    FUSION_FILE,
    LANGUAGE,
    TAGS_FILE,
    adapter_config,
    fusion_file,
)
from vlm.model.connectors.connector import Connector
from vlm.model.eyes import Eyes
from vlm.model.fusion import Fusion
from vlm.model.plain_lora import LORA_CONFIG, LORA_WEIGHTS, check_plain
from vlm.weights.resolve import public_name
from vlm.weights.tensor_files import check_names, load_tensors, save_tensors, to_store
from vlm.whole_files import whole_folder

if TYPE_CHECKING:  # with it come Transformers' models and PEFT, which llama.cpp does without
    from vlm.model.language import LanguageModel
    from vlm.model.vlm import VisionLanguageModel

# The weights of a run of training.heads, and what the trunk's begin with
TASKS_FILE, TRUNK_PREFIX = "heads.safetensors", "trunk."


def damaged(folder: Path) -> AbstractContextManager[None]:
    """Within it whatever is wrong with an adapter folder's files is a UserError."""
    return plain_load_errors(f"The adapter {folder} is damaged or incomplete", "Copy or train it again.")


def load_eyes(eyes: Eyes, folder: Path) -> None:
    """Put the projector of an adapter folder into the eyes, to serve."""
    load_part(eyes.connector, folder / CONNECTOR_FILE)
    _load_tags(eyes, folder)
    eyes.eval()


def load_part(part: Connector | Fusion, file: Path) -> None:
    """Put the weights of a file of an adapter folder into the part that they are of."""
    with damaged(file.parent):
        part.load_state_dict(load_tensors(file, part.state_dict()))


def _load_tags(eyes: Eyes, folder: Path) -> None:
    if eyes.tagger and (folder / TAGS_FILE).is_file():
        with damaged(folder):
            eyes.tagger.load(folder / TAGS_FILE)


def lora_folder(folder: Path) -> Path | None:
    """The LoRA of an adapter folder, in PEFT's format, checked to be plain; None where the model has none."""
    if not adapter_config(folder).lora.rank:
        return None
    with damaged(folder):
        described = json.loads((folder / "lora" / LORA_CONFIG).read_text(encoding="utf-8"))
        check_plain(described, adapter_config(folder).lora)
    return folder / "lora"


def load_adapter(model: "VisionLanguageModel", folder: Path, trainable: bool = False) -> None:
    """Put the parts of an adapter folder into a whole model in torch."""
    _load_trained(model, folder)
    _load_tags(model.eyes, folder)
    model.eyes.eval()
    if lora := lora_folder(folder):
        with damaged(folder):
            model.language.load_lora(lora, trainable)


def _load_trained(model: "VisionLanguageModel", folder: Path) -> None:
    """Put in all that was trained except the LoRA."""
    load_part(model.eyes.connector, folder / CONNECTOR_FILE)
    if file := fusion_file(folder):
        load_part(model.fusion, file)
    load_language(model.language, folder)


def load_language(language: "LanguageModel", folder: Path) -> None:
    """The language model's own weights, where the adapter was trained with them."""
    file = folder / LANGUAGE / "model.safetensors"
    if not file.is_file():
        return
    with damaged(folder):
        missing, unknown = language.model.load_state_dict(load_tensors(file), strict=False)
        if unknown or set(missing) - {"lm_head.weight"}:  # which is the embeddings' again
            raise ValueError(f"its {LANGUAGE} folder is of another model")
    language.trained_whole = True


def load_trunk(connector: Connector, folder: Path) -> None:
    """Let a fresh connector begin as the Q-Former of a run of training.heads; its last layer, into the language model's
    space, stays fresh. One that reads questions takes over how to read text as well."""
    reads = connector.reads_questions
    file = folder / (TASKS_FILE if reads else CONNECTOR_FILE)
    if not file.is_file():
        raise UserError(
            f"{folder} has no {file.name}. Make it with python -m training.heads --preset q-former."
        )
    with damaged(folder):
        trunk = _below(TRUNK_PREFIX, load_tensors(file)) if reads else load_tensors(file)
        state = {name: each for name, each in trunk.items() if not name.startswith("outward.")}
        missing, unknown = connector.load_state_dict(state, strict=False)
        if unknown or {name for name in missing if not name.startswith("outward.")}:
            raise ValueError("its Q-Former has other settings than the preset's connector")


def restore_adapter(model: "VisionLanguageModel", folder: Path) -> None:
    """Copy what trains from a checkpoint's adapter folder into a model whose LoRA is in place already."""
    from peft import set_peft_model_state_dict

    _load_trained(model, folder)
    if not model.language.has_lora:
        return
    with damaged(folder):
        lora = load_tensors(folder / "lora" / LORA_WEIGHTS)
        check_names(lora, model.language.lora_state(), "its LoRA")
        set_peft_model_state_dict(model.language.model, lora)


def save_adapter(
    model: "VisionLanguageModel",
    folder: Path,
    config: ModelConfig,
    training: dict[str, Any],
    dtype: torch.dtype = torch.float16,
    state: dict[str, torch.Tensor] | None = None,
) -> None:
    """float16 to ship, float32 in a checkpoint that training goes on from. `state` is the model's whole state where its
    parameters are divided among processes."""
    state = model.state_dict() if state is None else state
    resolved: dict[str, Any] = {"model": to_dict(with_all_settings(config)), "training": training}
    if model.language.trained_whole:
        resolved["trained_whole"] = True  # so that a copy without the language model is noticed
    if model.eyes.tagger and model.eyes.tagger.head:
        # and one without the tagger's head, which would see with other tags than in training
        resolved["tagged"] = True
    with whole_folder(folder) as working:
        (working / "config.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")
        save_tensors(to_store(_below("eyes.connector.", state), dtype), working / CONNECTOR_FILE)
        if fusion := _below("fusion.", state):
            save_tensors(to_store(fusion, dtype), working / FUSION_FILE)
        if model.eyes.tagger:
            model.eyes.tagger.save(working / TAGS_FILE)
        if model.language.has_lora:
            _write_lora(model, working, config, dtype, state)
        if model.language.trained_whole:
            _write_language(model, working / LANGUAGE, dtype, state)


def _write_language(
    model: "VisionLanguageModel", folder: Path, dtype: torch.dtype, state: dict[str, torch.Tensor]
) -> None:
    weights = to_store(_below("language.model.", state), dtype)
    model.language.model.save_pretrained(folder, state_dict=weights)
    model.language.tokenizer.save_pretrained(folder)
    for written in folder.glob("*.safetensors"):  # which safetensors keeps from other accounts
        written.chmod((folder / "config.json").stat().st_mode)


def _write_lora(
    model: "VisionLanguageModel",
    folder: Path,
    config: ModelConfig,
    dtype: torch.dtype,
    state: dict[str, torch.Tensor],
) -> None:
    lora = model.language.model.peft_config["default"]
    (folder / "lora").mkdir()
    weights = model.language.lora_state(_below("language.model.", state))
    file = folder / "lora" / LORA_WEIGHTS
    save_tensors(to_store(weights, dtype), file, {"format": "pt"})
    description = lora.to_dict() | {
        "base_model_name_or_path": public_name(config.language.weights),
        "inference_mode": True,
    }
    description["target_modules"] = sorted(lora.target_modules)
    told = json.dumps(description, indent=1, sort_keys=True)
    (folder / "lora" / LORA_CONFIG).write_text(told, encoding="utf-8")


def _below(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state of the part that `prefix` names."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
