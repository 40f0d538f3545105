"""A whole model with CLIP's eyes -> the GGUF files with which llama.cpp, LM Studio and Ollama see pictures."""

import shutil
from pathlib import Path
from typing import Any

from vlm.config import ModelConfig
from vlm.engines.lora_gguf import write_lora
from vlm.errors import UserError
from vlm.export.gguf_tensors import KINDS
from vlm.export.language_gguf import check_language, write_language
from vlm.export.llava_parts import LlavaParts, llava_parts
from vlm.export.mmproj_gguf import check_mmproj, write_mmproj
from vlm.export.modelfile import modelfile
from vlm.model.eyes import Eyes
from vlm.model.vlm import VisionLanguageModel
from vlm.weights.resolve import gguf_file


def check_gguf(eyes: Eyes, sizes: Any) -> LlavaParts:
    """The parts as llama.cpp has them. Raises UserError that names the one that it has otherwise. `sizes`: the language
    model's config."""
    parts = llava_parts(eyes)
    check_mmproj(parts)
    check_language(sizes)
    return parts


def write_gguf(
    model: VisionLanguageModel,
    config: ModelConfig,
    folder: Path,
    called: str,
    lora: Path | None,
    class_token: str,
) -> None:
    """Fill `folder`. `model`: without a LoRA, or with one that is merged. `lora`: PEFT's folder, for a file of its own.
    `class_token` as for write_mmproj."""
    language, kind = model.language, KINDS[model.language.dtype]
    eyes, base = folder / f"mmproj-{called}.gguf", folder / f"{called}.gguf"
    parts = check_gguf(model.eyes, language.model.config)
    write_mmproj(parts, eyes, kind, called, class_token)
    given = gguf_file(config.language.weights) if lora else None
    if given:  # the base model as it is
        base = folder / given.name
        shutil.copyfile(given, base)
    else:
        write_language(language.model, language.tokenizer, base, kind, called)
    adapter = folder / f"{called}-lora.gguf" if lora else None
    if lora and adapter:
        write_lora(lora, base, adapter)
    told = modelfile(
        language.tokenizer, [base, eyes], adapter, config.answers.image_system, config.language.context
    )
    (folder / "Modelfile").write_text(told, encoding="utf-8")


def write_lora_alone(config: ModelConfig, lora: Path | None, folder: Path, called: str) -> None:
    """The LoRA as one GGUF file, for a language model that is a GGUF file already."""
    if lora is None:
        raise UserError(f"The adapter {called} has no LoRA.")
    base = gguf_file(config.language.weights)
    if base is None:
        raise UserError(
            f"The language model {config.language.weights!r} is no GGUF file. Export with --to gguf, which writes the "
            "LoRA beside its language model."
        )
    write_lora(lora, base, folder / f"{called}-lora.gguf")
