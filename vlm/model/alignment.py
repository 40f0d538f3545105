"""An aligner is built of its preset, and lives in a folder: config.yaml (the resolved preset, and how it was trained),
heads.safetensors and metrics.json. Safetensors and text only, never a pickle."""

import json
import os
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import safe_open

from vlm.config import AlignerConfig
from vlm.config_reader import from_dict, read_yaml, to_dict
from vlm.errors import UserError, plain_load_errors
from vlm.model.adapter_folder import refuse_pickles
from vlm.model.aligner import Aligner
from vlm.model.encoders import build_encoder
from vlm.model.pooling import build_head
from vlm.model.text_encoders import build_text_encoder
from vlm.weights.tensor_files import load_tensors, save_tensors, to_store
from vlm.whole_files import whole_folder

ALIGNERS = Path(__file__).parents[2] / "assets" / "aligners"
ALIGNER_FILE = "heads.safetensors"


def build_aligner(config: AlignerConfig, device: str = "cpu") -> Aligner:
    """The encoders with their weights, and fresh heads."""
    dims = config.dims
    if not dims or list(dims) != sorted(set(dims), reverse=True) or dims[-1] < 1:
        raise UserError(f"An aligner's dims are numbers, largest first, each once; {list(dims)} was given.")
    for template in config.class_texts:
        try:
            template.format(name="", meaning="")
        except (LookupError, ValueError) as problem:
            raise UserError(
                f"The aligner's class_texts may have {{name}} and {{meaning}} in braces; {template!r} has others."
            ) from problem
    vision, text = build_encoder(config.vision, device), build_text_encoder(config.text, device)
    if config.class_texts and not hasattr(vision, "classes"):
        raise UserError(
            f"The encoder {config.vision.encoder!r} has no classes. Leave class_texts out of the aligner's preset."
        )
    picture_head = build_head(config.picture_head, vision.feature_size, dims[0])
    text_head = build_head(config.text_head, text.feature_size, dims[0])
    return Aligner(config, vision, text, picture_head, text_head).to(device)


def find_aligner(name: str) -> Path:
    """A folder, or a shipped aligner's name -> the folder, checked to hold an aligner."""
    folder = Path(name) if os.path.isdir(name) else ALIGNERS / name
    missing = [file for file in ("config.yaml", ALIGNER_FILE) if not os.path.isfile(folder / file)]
    if missing:
        shipped = ", ".join(sorted(path.name for path in ALIGNERS.glob("*/"))) or "none"
        raise UserError(
            f"{name} is not an aligner: it has no {' and no '.join(missing)}. Shipped aligners: {shipped}; or train one "
            "with python -m training.align."
        )
    refuse_pickles(folder)
    return folder


def aligner_config(folder: Path) -> AlignerConfig:
    """The resolved preset in an aligner's folder."""
    file = folder / "config.yaml"
    told = read_yaml(file)
    if not isinstance(told, dict) or not isinstance(told.get("aligner"), dict):
        raise UserError(
            f"{file} is damaged: it does not tell what the aligner is made of. Copy or train it again."
        )
    return from_dict(AlignerConfig, told["aligner"], str(file))


def load_aligner_model(name: str = "embedded", device: str = "cpu") -> Aligner:
    """The aligner of a folder, or a shipped one by its name, to use."""
    folder = find_aligner(name)
    aligner = build_aligner(aligner_config(folder), device)
    restore_aligner(aligner, folder)
    return aligner.requires_grad_(False).eval()


def restore_aligner(aligner: Aligner, folder: Path) -> None:
    """Put the weights of an aligner's folder into one of the same config."""
    with plain_load_errors(f"The aligner {folder} is damaged or incomplete", "Copy or train it again."):
        with safe_open(folder / ALIGNER_FILE, framework="pt") as stored:
            names = list(stored.keys())
        aligner.encoders_trained = any(name.startswith(("vision.", "text.")) for name in names)
        state = load_tensors(folder / ALIGNER_FILE, aligner.trained_state())
        aligner.load_state_dict(state, strict=False)


def save_aligner(
    aligner: Aligner,
    folder: Path,
    training: dict[str, Any],
    metrics: dict[str, Any],
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write the aligner's folder as a whole; with the encoders' weights where those were trained. float16 to ship, float32
    to train on."""
    was_training = aligner.training
    aligner.eval()  # the names of classes are then what the text head makes of them now
    with whole_folder(folder) as working:
        resolved = {"aligner": to_dict(aligner.preset), "training": training}
        (working / "config.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")
        (working / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")
        save_tensors(to_store(aligner.trained_state(), dtype), working / ALIGNER_FILE)
    aligner.train(was_training)
