"""adapter_config.json in PEFT's format -> checked to describe a plain LoRA, which every engine applies alike.

PEFT knows dozens of kinds. Some change the base weights while they are loaded or import what the file names, and llama.cpp
knows none of them: what is not plain would be answered with wrongly, or differently by each engine.
"""

import math
from typing import Any

from vlm.config import LoraConfig

LORA_CONFIG, LORA_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # as PEFT names them
# What says nothing about how the LoRA is applied, or is judged by the engine that serves it
LET_BE = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout", "megatron_core", "peft_type",
    "peft_version", "qalora_group_size", "revision", "task_type", "use_rslora", "rank_pattern", "alpha_pattern",
    "exclude_modules", "runtime_config",
}  # fmt: skip
PLAIN_STARTS = (True, False, "gaussian")  # init_lora_weights; others change the base weights


def check_plain(described: Any, lora: LoraConfig) -> None:
    """Raise ValueError where it is no plain LoRA, or another one than config.yaml tells."""
    if not isinstance(described, dict) or described.get("peft_type") != "LORA":
        raise ValueError("its adapter_config.json describes no plain LoRA")
    start = described.get("init_lora_weights", True)
    if start not in PLAIN_STARTS:
        raise ValueError(f"it is no plain LoRA: its init_lora_weights is {start!r}")
    if described.get("bias", "none") != "none":
        raise ValueError(f"it is no plain LoRA: its bias is {described['bias']!r}")
    ours = {"r", "lora_alpha", "target_modules", "init_lora_weights", "bias"}
    more = sorted(name for name, value in described.items() if value and name not in LET_BE | ours)
    if more:
        raise ValueError(f"it is no plain LoRA: its adapter_config.json sets {', '.join(more)}")
    _check_numbers(described)
    told = (described["r"], described["lora_alpha"], sorted(described["target_modules"]))
    meant = (lora.rank, lora.alpha, sorted(lora.targets))
    for name, one, other in zip(("rank", "alpha", "targets"), told, meant, strict=True):
        if one != other:
            raise ValueError(f"its adapter_config.json has the {name} {one}, and its config.yaml {other}")


def _check_numbers(described: dict[str, Any]) -> None:
    rank, alpha, targets = (described.get(name) for name in ("r", "lora_alpha", "target_modules"))
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise ValueError(f"the rank r in its adapter_config.json is {rank!r}")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise ValueError(f"lora_alpha in its adapter_config.json is {alpha!r}")
    if not isinstance(targets, list) or not targets or not all(isinstance(each, str) for each in targets):
        raise ValueError("target_modules in its adapter_config.json is no list of names")
