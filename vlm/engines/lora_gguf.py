"""The LoRA of an adapter folder -> the GGUF file of it that llama.cpp reads, made once and kept in the cache.

The file's name has the SHA-256 of what it was made from: after a change to that another one is made.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import gguf
import numpy as np
from torch import Tensor

from vlm.errors import UserError, plain_load_errors
from vlm.model.plain_lora import LORA_CONFIG, LORA_WEIGHTS
from vlm.weights.cache import cache_folder, sha256_of, writing
from vlm.weights.tensor_files import load_tensors
from vlm.whole_files import whole_file

Rows = TypeVar("Rows", np.ndarray, Tensor)
PREFIX, SIDES = "base_model.model.", {".lora_A.weight": ".lora_a", ".lora_B.weight": ".lora_b"}
LAYER = re.compile(r"\.\d+\.")
TURNED = {
    "attn_q": "attention.head_count",
    "attn_k": "attention.head_count_kv",
}  # of the architecture "llama"
KEPT = 4  # files in the cache, those used last
STEP = 32  # llama.cpp multiplies so many values at a time, and what is left over one by one
FORM = f"float16, ranks filled up to {STEP}, checked to be whole and finite"


def lora_as_gguf(lora: Path, weights: Path) -> Path:
    """`lora`: PEFT's folder. `weights`: the GGUF file of the base model that it was trained for."""
    parts = [lora / LORA_CONFIG, lora / LORA_WEIGHTS]
    content = hashlib.sha256("".join([FORM, *map(sha256_of, parts)]).encode()).hexdigest()[:16]
    file = cache_folder() / "lora" / f"{content}-{weights.stem}.gguf"
    if not file.is_file():
        with writing(file.parent):
            file.parent.mkdir(exist_ok=True)
            for left in file.parent.glob("*.partial"):  # of a process that was killed
                left.unlink()
            if not file.is_file():  # else another process was faster
                with whole_file(file) as partial:
                    write_lora(lora, weights, partial)
    with suppress(OSError):  # a cache that may only be read
        os.utime(file, (time.time(), file.stat().st_mtime))  # many file systems do not note what is read
        _keep_the_latest(file.parent)
    return file


def _keep_the_latest(folder: Path) -> None:
    """Training makes many adapters. A file that is in use elsewhere stays readable there, or cannot be deleted."""
    for old in sorted(folder.glob("*.gguf"), key=lambda each: each.stat().st_atime)[:-KEPT]:
        with suppress(OSError):
            old.unlink()


def write_lora(lora: Path, weights: Path, file: Path) -> None:
    """`lora`: PEFT's folder. `weights`: the GGUF file of its base model. `file`: the LoRA as GGUF, to be written."""
    with plain_load_errors(f"The LoRA in {lora} is damaged", "Copy or train it again."):
        config = json.loads((lora / LORA_CONFIG).read_text(encoding="utf-8"))
        scale = _scale(config)
        targets = set(config["target_modules"])
        found = load_tensors(lora / LORA_WEIGHTS)
        tensors = {name: tensor.float().numpy() for name, tensor in found.items()}
    _write(file, config["r"], scale, targets, tensors, weights)


def _scale(config: dict[str, Any]) -> float:
    """What PEFT multiplies the product of the two matrices by."""
    for name in ("rank_pattern", "alpha_pattern"):
        if config.get(name):
            raise ValueError(f"its {name} gives layers a scale of their own, which llama.cpp does not know")
    return config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])


def _write(
    file: Path, rank: int, scale: float, targets: set[str], tensors: dict[str, np.ndarray], weights: Path
) -> None:
    base = gguf.GGUFReader(weights)
    architecture = base.fields["general.architecture"].contents()
    shapes = {tensor.name: tuple(tensor.shape.tolist()) for tensor in base.tensors}  # [in, out]
    names = gguf.get_tensor_name_map(
        known_architecture(architecture), base.fields[f"{architecture}.block_count"].contents()
    )
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    filled = -(-rank // STEP) * STEP  # a rank of 8 filled up with zeros is the faster
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, scale * filled)
    for peft_name, tensor in sorted(tensors.items()):
        module, side = _split(peft_name)
        name = names.get_name(module) or ""
        inside, outside = shapes.get(f"{name}.weight", (0, 0))
        if tensor.shape != ((rank, inside) if side == ".lora_a" else (outside, rank)):
            raise UserError(
                f"The adapter was trained for another language model than {weights.name}, or with another rank than "
                f"{rank}: its {module} is of another size. Use the adapter's own preset."
            )
        part = name.rpartition(".")[2]
        if architecture == "llama" and side == ".lora_b" and part in TURNED:
            tensor = turned(tensor, base.fields[f"llama.{TURNED[part]}"].contents())
        zeros = ((0, filled - rank), (0, 0)) if side == ".lora_a" else ((0, 0), (0, filled - rank))
        writer.add_tensor(f"{name}.weight{side}", np.pad(tensor, zeros).astype(np.float16))
    _check_whole(tensors, targets, base.fields[f"{architecture}.block_count"].contents())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _check_whole(names: Iterable[str], targets: set[str], layers: int) -> None:
    """Raise UserError where a matrix of a target is missing in any layer."""
    places = {LAYER.sub(".{}.", _split(name)[0]) for name in names}
    absent = targets - {place.rpartition(".")[2] for place in places}
    needed = [
        f"{PREFIX}{place.format(layer)}{side}"
        for place in places
        for layer in range(layers)
        for side in SIDES
    ]
    missing = [*(f"every {target}" for target in sorted(absent)), *sorted({*needed} - {*names})]
    if missing:
        raise UserError(
            f"The LoRA of the adapter is damaged: {len(missing)} of its parts are missing, the first is {missing[0]}. "
            "Copy or train it again."
        )


def known_architecture(architecture: str) -> gguf.MODEL_ARCH:
    for known, name in gguf.MODEL_ARCH_NAMES.items():
        if name == architecture:
            return known
    raise UserError(
        f"The GGUF architecture {architecture!r} is not known here. Set language.engine to torch."
    )


def _split(peft_name: str) -> tuple[str, str]:
    """PEFT's name of a tensor -> the module in the language model, and lora_a or lora_b."""
    for ending, side in SIDES.items():
        if peft_name.endswith(ending):
            return peft_name.removeprefix(PREFIX).removesuffix(ending), side
    raise UserError(f"The adapter holds {peft_name}, which is no LoRA of a linear layer.")


def turned(rows: Rows, heads: int) -> Rows:
    """Rows of a query or key projection in the order of GGUF's rotary embedding for the architecture "llama", which
    interleaves the halves of each head."""
    return (
        rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
        .swapaxes(1, 2)
        .reshape(rows.shape)
    )
