"""A preset and its adapter -> the engine that serves them on this machine."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vlm.config import REMOTE, LanguageConfig, ModelConfig
from vlm.engines import Engine, Host
from vlm.engines.llama_library import LibraryProblem, load_library
from vlm.errors import UserError
from vlm.model.adapter import load_part
from vlm.model.fusion import build_fusion
from vlm.weights.resolve import gguf_file, is_gguf, tokenizer_folder

ENGINES = ("auto", "torch", "llama.cpp")
IN_LLAMA_CPP = (
    "prefix",
    "fused",
)  # the fusions that it can hold: it reads embeddings, and its layers are its own


class Built(NamedTuple):
    """`device`: where the rest of the model goes. `notice`: what people should know, in a sentence; "" for nothing."""

    engine: Engine
    tokenizer: Any
    embedding_size: int
    device: str
    notice: str = ""


@contextmanager
def closed_on_failure(engine: Host) -> Iterator[None]:
    """Within it a failure closes the engine, whose thread would otherwise keep the model in memory."""
    try:
        yield
    except BaseException:
        engine.close()
        raise


def build_engine(config: ModelConfig, lora: Path | None, device: str, fusion: Path | None = None) -> Built:
    """`lora`: PEFT's folder, and `fusion`: the weights of the fusion; None without an adapter, or without that part. `auto`
    takes llama.cpp for GGUF weights where there is no GPU with the memory for them, and torch where its library does not
    load or cannot hold the fusion."""
    wanted = config.language.engine
    if wanted not in ENGINES:
        raise UserError(f"There is no engine {wanted!r}. Valid: {', '.join([*ENGINES, REMOTE])}.")
    held = config.fusion.kind in IN_LLAMA_CPP
    if wanted == "llama.cpp" and not held:
        raise UserError(
            f"llama.cpp holds the fusions {' and '.join(IN_LLAMA_CPP)}, and the preset {config.name!r} has "
            f"{config.fusion.kind}. Set language.engine to torch."
        )
    auto = wanted == "auto" and held
    could = auto and device != "cpu" and is_gguf(config.language.weights)
    too_small = _too_small(config, device) if could else ""
    notice = f"{too_small} llama.cpp answers on the CPU instead." if too_small else ""
    device = "cpu" if too_small else device
    if wanted == "llama.cpp" or (auto and device == "cpu"):
        weights = gguf_file(config.language.weights)
        if weights is None and wanted == "llama.cpp":
            raise UserError(
                f"llama.cpp needs GGUF weights, and {config.language.weights!r} has none. Set language.engine to torch."
            )
        try:
            if weights is not None:
                load_library()
                return _llama_cpp(config, weights, lora, fusion, device)._replace(notice=notice)
        except LibraryProblem as problem:
            if wanted == "llama.cpp":
                raise
            instead = f"{problem}. Torch serves the same weights, more slowly and with more memory."
            notice = f"{too_small} {instead}".strip()
    return _torch(config, lora, fusion, device, notice)


def _too_small(config: ModelConfig, device: str) -> str:
    """What the GPU lacks for these weights in torch, in a sentence; "" where they fit."""
    from vlm.model.sizes import TooLittleMemory, choose_precision

    try:
        choose_precision(config, device)
    except TooLittleMemory as problem:
        return problem.told
    return ""


def _llama_cpp(
    config: ModelConfig, weights: Path, lora: Path | None, fusion: Path | None, device: str
) -> Built:
    from vlm.engines.fused_words import load_fused_words
    from vlm.engines.llama_cpp import LlamaCppEngine
    from vlm.engines.lora_gguf import lora_as_gguf

    language = config.language
    with ThreadPoolExecutor(1, "tokenizer") as pool:
        # two seconds, while llama.cpp reads its file
        tokenizer = pool.submit(_load_tokenizer, language)
        adapter = lora_as_gguf(lora, weights) if lora else None
        fused = load_fused_words(config.fusion, weights, fusion) if config.fusion.kind == "fused" else None
        engine = LlamaCppEngine(weights, adapter, language.context, language.cache_tokens, fused)
        with closed_on_failure(engine):
            return Built(engine, tokenizer.result(), engine.embedding_size, device)


def _load_tokenizer(language: LanguageConfig) -> Any:
    from vlm.model.tokenizer import load_tokenizer

    return load_tokenizer(tokenizer_folder(language.weights), language, whole=True)


def _torch(config: ModelConfig, lora: Path | None, fusion: Path | None, device: str, notice: str) -> Built:
    # Transformers' models and PEFT take seconds and memory that llama.cpp does without
    from vlm.engines.torch_engine import TorchEngine
    from vlm.model.language import build_language
    from vlm.model.sizes import choose_precision

    config = choose_precision(config, device)
    language = build_language(config.language, device)
    if lora:
        language.load_lora(lora)
    language.eval()
    fused = build_fusion(config.fusion, language.causal)
    if fusion:
        load_part(fused, fusion)
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    engine = TorchEngine(
        language,
        f"{name}, {language.precision}",
        config.language.context,
        config.language.cache_tokens,
        fused.to(language.model.device, language.dtype).eval(),
    )
    return Built(engine, language.tokenizer, language.embedding_size, device, notice)
