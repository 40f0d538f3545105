"""A whole model with CLIP's eyes -> the GGUF files with which llama.cpp, LM Studio and Ollama see pictures."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlm.config import ModelConfig
from vlm.engines.lora_gguf import write_lora
from vlm.errors import UserError
from vlm.export.gguf_tensors import KINDS
from vlm.export.language_gguf import check_language, write_language
from vlm.export.llava_parts import LlavaParts, llava_parts
from vlm.export.mmproj_gguf import check_mmproj, write_mmproj
from vlm.model.eyes import Eyes
from vlm.model.prompts import SYSTEM, control_tokens, template_frame
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
    told = _modelfile(language.tokenizer, [base, eyes], adapter, config)
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


def _modelfile(tokenizer: Any, models: Sequence[Path], lora: Path | None, config: ModelConfig) -> str:
    """What Ollama serves the files with: `ollama create NAME -f Modelfile`. `models`: the language model, and the vision
    tower with its projector. `lora` is applied to the first."""
    lines = [f"FROM ./{file.name}" for file in models]
    if lora:
        lines.append(f"ADAPTER ./{lora.name}")
    lines.append(f'TEMPLATE """{_template(tokenizer)}"""')
    if config.answers.image_system:
        lines.append(f'SYSTEM """{config.answers.image_system}"""')
    lines += [f'PARAMETER stop "{token}"' for token in _stops(tokenizer)]
    lines += ["PARAMETER temperature 0", f"PARAMETER num_ctx {config.language.context}"]
    return "\n".join(lines) + "\n"


def _template(tokenizer: Any) -> str:
    """The chat template in Ollama's own language, for one turn, which it repeats."""
    begin = tokenizer.bos_token or ""  # which Ollama adds by itself
    ((plain, before_answer, after),) = template_frame(tokenizer, 1, True, None)
    ((told, _, _),) = template_frame(tokenizer, 1, True, SYSTEM)
    told = told.removeprefix(begin).replace(SYSTEM, "{{ .System }}")
    before = f"{{{{ if .System }}}}{told}{{{{ else }}}}{plain.removeprefix(begin)}{{{{ end }}}}"
    return f"{before}{{{{ .Prompt }}}}{before_answer}{{{{ .Response }}}}{after}"


def _stops(tokenizer: Any) -> list[str]:
    ((_, _, after),) = template_frame(tokenizer, 1, True, None)
    ends = (token for token in control_tokens(tokenizer).values() if after.startswith(token))
    return sorted({tokenizer.eos_token, *ends})
