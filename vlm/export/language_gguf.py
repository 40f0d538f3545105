"""A language model in torch -> a GGUF file, for the three architectures that the presets have: llama, phi3 and qwen2."""

import math
from pathlib import Path
from typing import Any

import gguf
import torch
from gguf import MODEL_TENSOR, TENSOR_NAMES
from torch import Tensor

from vlm.engines.lora_gguf import TURNED, known_architecture, turned
from vlm.errors import UserError
from vlm.export.gguf_tensors import Kind, write_tensors
from vlm.export.vocabulary_gguf import add_vocabulary

ARCHITECTURES = ("llama", "phi3", "qwen2")
ELSEWHERE = "Export with --to llava, and let llama.cpp's own convert_hf_to_gguf.py write the language model."


def check_language(config: Any) -> None:
    """Raises UserError where a model of this config cannot be written."""
    if config.model_type not in ARCHITECTURES:
        raise UserError(
            f"A language model of the type {config.model_type!r} cannot be written as GGUF here, but "
            f"{', '.join(ARCHITECTURES)}. {ELSEWHERE}"
        )
    kind = config.rope_parameters["rope_type"]
    if kind not in {"default", {"llama": "llama3", "phi3": "longrope"}.get(config.model_type)}:
        raise UserError(f"Rotary embeddings of the kind {kind!r} cannot be written as GGUF here. {ELSEWHERE}")


def write_language(model: Any, tokenizer: Any, file: Path, kind: Kind, name: str) -> None:
    """`model`: Transformers' own, a LoRA merged or none. `name` is shown to people."""
    config = model.config
    writer = gguf.GGUFWriter(file, config.model_type)
    writer.add_type(gguf.GGUFType.MODEL)
    swallowing = any(token.rstrip for token in tokenizer.added_tokens_decoder.values())
    # llama.cpp tells from the name whether control tokens swallow the space behind them, as Phi-3's do
    writer.add_name(f"{name} (phi-3)" if swallowing else name)
    _add_sizes(writer, config)
    add_vocabulary(writer, tokenizer, config.vocab_size)
    write_tensors(writer, file, _rope(writer, config) | _tensors(model), kind)


def _add_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    heads = config.num_attention_heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads or heads)
    writer.add_key_length(_head_size(config))
    writer.add_value_length(_head_size(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(_rotated(config))
    if config.model_type == "phi3":
        writer.add_sliding_window(config.sliding_window or 0)


def _head_size(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _rotated(config: Any) -> int:
    """Channels of a head that the rotary embedding turns."""
    return int(_head_size(config) * config.rope_parameters.get("partial_rotary_factor", 1.0))


def _rope(writer: gguf.GGUFWriter, config: Any) -> dict[str, Tensor]:
    """By what the frequencies of the rotary embedding are divided, where a model was made for long texts."""
    rope = config.rope_parameters
    if rope["rope_type"] == "llama3":
        return {f"{TENSOR_NAMES[MODEL_TENSOR.ROPE_FREQS]}.weight": _llama3_factors(rope, _rotated(config))}
    if rope["rope_type"] != "longrope":
        return {}
    original = rope.get("original_max_position_embeddings") or config.original_max_position_embeddings
    scale = config.max_position_embeddings / original
    writer.add_rope_scaling_orig_ctx_len(original)
    writer.add_rope_scaling_attn_factors(
        math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0
    )
    return {
        f"{TENSOR_NAMES[MODEL_TENSOR.ROPE_FACTORS_LONG]}.weight": torch.tensor(rope["long_factor"]),
        f"{TENSOR_NAMES[MODEL_TENSOR.ROPE_FACTORS_SHORT]}.weight": torch.tensor(rope["short_factor"]),
    }


def _llama3_factors(rope: dict[str, Any], rotated: int) -> Tensor:
    """Long waves are stretched by `factor`, short ones stay, and those between are in between (Llama 3.1)."""
    lengths = 2 * math.pi * rope["rope_theta"] ** (torch.arange(0, rotated, 2) / rotated)
    original, low, high = (
        rope[name] for name in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    )
    share = ((original / lengths - low) / (high - low)).clamp(0, 1)
    return 1 / ((1 - share) / rope["factor"] + share)


def _tensors(model: Any) -> dict[str, Tensor]:
    config = model.config
    names = gguf.get_tensor_name_map(known_architecture(config.model_type), config.num_hidden_layers)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    tensors = {}
    for theirs, tensor in model.state_dict().items():
        if theirs == "lm_head.weight" and config.tie_word_embeddings:
            continue
        name = names.get_name(theirs, (".weight", ".bias"))
        if name is None:
            raise UserError(
                f"The language model has {theirs}, which cannot be written as GGUF here. {ELSEWHERE}"
            )
        part = name.split(".")[-2]
        if config.model_type == "llama" and part in TURNED:
            tensor = turned(tensor, heads[part])
        tensors[name] = tensor
    return tensors
