"""Public LLaVA checkpoints: where they are, and which of two forms they have.

Transformers' own (`llava-hf/llava-1.5-7b-hf`) has vision tower, projector and language model in one checkpoint. PEFT's, of
the original LLaVA code (`liuhaotian/llava-v1.5-7b-lora`), has a LoRA and a projector for a language model that lies
elsewhere. What is made of them is in vlm/model/llava_import.py.
"""

import json
import os
from pathlib import Path
from typing import Any

from vlm.errors import UserError
from vlm.model.plain_lora import LORA_CONFIG
from vlm.weights.hub import fetch, is_hub_name
from vlm.weights.resolve import resolve

LORA_FILES = (LORA_CONFIG, "non_lora_trainables.bin")


def _described(folder: Path) -> dict[str, Any]:
    """The folder's config.json; empty where it cannot be read."""
    try:
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return described if isinstance(described, dict) else {}


def is_llava(folder: Path) -> bool:
    """Whether it is in Transformers' form. The original code's repositories have the same type, and no sizes of parts."""
    described = _described(folder)
    return described.get("model_type") == "llava" and "text_config" in described


def is_checkpoint(folder: Path) -> bool:
    return is_llava(folder) or all(os.path.isfile(folder / name) for name in LORA_FILES)


def find_checkpoint(source: str) -> Path:
    """A folder, or user/name on the hub -> the folder of the whole checkpoint. Raises UserError where it is none."""
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if not is_hub_name(source):
            raise UserError(
                f"There is no checkpoint {source!r}: it is neither a folder nor user/name on the hub."
            )
        folder = _fetched(source)
    if not is_checkpoint(folder):
        raise UserError(
            f"{source} {_fault(folder)}. A LLaVA in Transformers' form, or a LoRA of one in PEFT's, can be imported."
        )
    return folder


def _fetched(source: str) -> Path:
    """First what tells the form, then that form's files."""
    unknown = f"The checkpoint {source!r} is no folder here"
    folder = fetch(source, ["*.json"], unknown)
    if (folder / LORA_FILES[0]).is_file():
        return fetch(source, [*LORA_FILES, "*.json", "*.jinja", "adapter_model.*"], unknown)
    return resolve(source) if is_llava(folder) else folder


def _fault(folder: Path) -> str:
    missing = [name for name in LORA_FILES if not (folder / name).is_file()]
    if len(missing) == 1:
        return f"has no {missing[0]}"
    if not (described := _described(folder)):
        return "has no config.json that can be read"
    return f"is a model of the type {described.get('model_type')!r}"
