"""A run of training/finetune.py: what it is trained with, what of it is finished, and how its adapter tells it."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState

from training.config import TrainingConfig
from training.data import Row
from training.digest import digest
from training.runs.checkpoints import last_whole_checkpoint, steps_of
from training.runs.run_settings import claim_folder
from vlm.config import ModelConfig
from vlm.config_reader import to_dict
from vlm.errors import UserError
from vlm.model.adapter_fit import with_all_settings
from vlm.model.adapter_folder import adapter_config, adapter_name, find_adapter, read_description
from vlm.weights.resolve import sha256_of

FREE = (  # settings that change nothing of what is learned, or are told apart by the rows
    "slice", "batch_size", "gradient_accumulation", "gradient_checkpointing", "lora_share",
    "logging_steps", "save_steps", "validation_steps", "validation_conversations", "report_to",
)  # fmt: skip
LONGER = ("joint_stage.max_steps", "joint_stage.epochs")  # what --extend changes


def training_record(config: TrainingConfig, model: str) -> dict[str, Any]:
    """How it was trained, as the adapter tells it: without this machine's folders. `model` is its preset's own name."""
    told = {key: value for key, value in to_dict(config).items() if key not in ("data", "output")}
    known = config.init_from
    if known and os.path.isdir(known):
        known = adapter_name(Path(known))
    trunk = config.connector_from and Path(config.connector_from).resolve().name
    return told | {"init_from": known, "connector_from": trunk, "model": model}


def check_lora(adapter: Path, config: ModelConfig) -> None:
    """Refuse to go on from an adapter with another LoRA than the preset's: the config of the new one would belie it."""
    share = (read_description(adapter).get("training") or {}).get("lora_share", 1.0)
    lora = adapter_config(adapter).lora
    told, asked = (
        f"a LoRA of rank {each.rank} and alpha {each.alpha:.6g} on {', '.join(sorted(each.targets))}"
        if each.rank
        else "no LoRA"
        for each in (replace(lora, alpha=lora.alpha / share), config.lora)  # all of it is gone on from
    )
    if told != asked:
        raise UserError(
            f"The adapter {adapter} has {told}, and the preset {config.name!r} {asked}. To go on from it, give the model "
            "preset the adapter's; else train without --init-from."
        )


def is_trained(adapter: Path, stage: str, config: TrainingConfig) -> bool:
    """Whether the folder holds the stage's adapter, trained to the end that the settings name."""
    if not adapter.is_dir():
        return False
    trained = read_description(adapter)["training"][f"{stage}_stage"]
    return trained == to_dict(config)[f"{stage}_stage"]


def is_finished(config: TrainingConfig) -> bool:
    """Whether there is nothing left to do for a run with these settings."""
    output = Path(config.output)
    whole = is_trained(output / "joint" / "adapter", "joint", config)
    done = whole and is_trained(output / "adapter", "joint", config)
    return done and read_description(output / "adapter")["training"]["lora_share"] == config.lora_share


def falls_short(config: TrainingConfig) -> bool:
    """Whether the joint stage's last checkpoint has fewer steps than are asked for."""
    checkpoint = last_whole_checkpoint(Path(config.output) / "joint")
    return bool(checkpoint) and steps_of(checkpoint) < config.joint_stage.max_steps


def claim_output(
    config: TrainingConfig, model_config: ModelConfig, rows: Sequence[Row], extend: bool
) -> list[int]:
    """Make sure that the run's folder is trained with these settings alone; returns the steps at which it was extended."""
    output = Path(config.output)
    checkpoint = last_whole_checkpoint(output / "joint")
    remedy = (
        "Give the settings from before, or another --output. --extend STEPS trains the same for longer, and "
        f"--init-from {output / 'adapter'} goes on from what was learned, in another --output."
    )
    if extend and not checkpoint:
        raise UserError(
            f"{output} has no checkpoint of its joint stage that --extend could go on from. {remedy}"
        )
    done = steps_of(checkpoint)
    if extend and config.joint_stage.max_steps < done:
        raise UserError(f"{output} has {done} joint steps already. Give a larger --extend.")
    settings = trained_with(config, model_config, rows)
    return claim_folder(output, settings, remedy, LONGER if extend else (), done)


def trained_with(config: TrainingConfig, model_config: ModelConfig, rows: Sequence[Row]) -> dict[str, Any]:
    """Everything that decides what a run learns."""
    settings = {
        name: value for name, value in training_record(config, model_config.name).items() if name not in FREE
    }
    if config.init_from:
        weights = sorted(find_adapter(config.init_from).rglob("*.safetensors"))
        settings["init_from"] = f"{settings['init_from']} ({digest(map(sha256_of, weights))})"
    at_once = config.batch_size * config.gradient_accumulation * PartialState().num_processes
    told = to_dict(with_all_settings(model_config))
    language = {name: told["language"][name] for name in ("weights", "dtype", "quantisation")}
    if told["language"]["template"]:  # a run that began before there was a choice goes on without it
        language["template"] = told["language"]["template"]
    model = {name: told[name] for name in ("vision", "connector", "fusion", "lora")} | {"language": language}
    return settings | {
        "conversations_a_step": at_once,
        "model": model | {"image_system": model_config.answers.image_system},
        "rows": digest(rows),
    }
