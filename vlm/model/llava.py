"""A folder in Transformers' LLaVA format: which part of it is which, and how each is loaded by itself.

`llava-hf/llava-1.5-7b-hf`, `xtuner/llava-phi-3-mini-hf` and their like hold a vision tower, a projector and a language
model in one checkpoint. Here each is loaded on its own, from that checkpoint, so that nothing is copied.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, CLIPVisionConfig, CLIPVisionModel, LlavaConfig
from transformers.utils import logging as transformers_logging

from vlm.errors import UserError
from vlm.model.checkpoints import is_llava

# Names in the checkpoint -> names in the part. Older files have another level of names than those of today.
LANGUAGE_KEYS = {
    r"^language_model\.lm_head": "lm_head",
    r"^(model\.)?language_model\.(model\.)?(?!lm_head)": "model.",
}
TOWER_KEYS = {r"^(model\.)?vision_tower\.(vision_model\.)?": ""}
PROJECTOR_PREFIX = "multi_modal_projector."


def llava_config(folder: Path) -> LlavaConfig:
    """Raises UserError where the vision tower is not CLIP's."""
    config = LlavaConfig.from_pretrained(folder)
    if not isinstance(config.vision_config, CLIPVisionConfig):
        raise UserError(
            f"The vision tower of {folder.name} is of the kind {config.vision_config.model_type!r}, and only CLIP's "
            "can be loaded here. Choose a LLaVA with CLIP, such as llava-hf/llava-1.5-7b-hf."
        )
    return config


def language_options(folder: Path) -> dict[str, Any]:
    """What from_pretrained needs to load the language model of a LLaVA, or of another that sees (Gemma 3); nothing for a
    folder that is one itself."""
    config = llava_config(folder) if is_llava(folder) else AutoConfig.from_pretrained(folder)
    text_config = config.get_text_config(decoder=True)
    if text_config is config:
        return {}
    text_config.tie_word_embeddings = getattr(config, "tie_word_embeddings", text_config.tie_word_embeddings)
    return {"config": text_config, "key_mapping": LANGUAGE_KEYS}


def load_tower(folder: Path, dtype: torch.dtype) -> CLIPVisionModel:
    """The vision tower of a LLaVA."""
    with other_parts_unmentioned():
        tower, found = CLIPVisionModel.from_pretrained(
            folder,
            config=llava_config(folder).vision_config,
            key_mapping=TOWER_KEYS,
            dtype=dtype,
            output_loading_info=True,
        )
    check_whole(found)
    return tower


@contextmanager
def other_parts_unmentioned() -> Iterator[None]:
    """Within it Transformers does not list the weights of a checkpoint that belong to its other parts."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def check_whole(found: dict[str, Any]) -> None:
    """Raises ValueError where weights are missing, which Transformers would replace by random ones."""
    missing = sorted(found["missing_keys"])
    if missing:
        raise ValueError(
            f"its files lack {missing[0]}" + f" and {len(missing) - 1} more" * (len(missing) > 1)
        )


def checkpoint_tensors(folder: Path, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """The tensors of a checkpoint whose names are wanted, from all of its shards."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted({folder / shard for name, shard in shards.items() if wanted(name)})
    else:
        files = sorted(folder.glob("*.safetensors"))
    tensors: dict[str, Tensor] = {}
    for file in files:
        with safe_open(file, "pt") as shard:
            tensors |= {name: shard.get_tensor(name) for name in shard.keys() if wanted(name)}  # noqa: SIM118
    return tensors
