"""Tiny language models in the forms that the engines read: Transformers' own class, a GGUF file of the very same weights in
float32, and LoRAs as PEFT saves them. The weights are random. Nothing is downloaded."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from tests.tiny import CHAT_TEMPLATE, CONTROL

VOCABULARY, EMBEDDING_SIZE, LAYERS, HEADS, KV_HEADS = 96, 64, 2, 4, 2
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CLASSES: dict[str, tuple[Any, Any]] = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}
# One token a byte, which GPT-2's tokenizer spells as a visible character each, a pair, and control tokens
PAIR = ("e", "r")
WORDS = [*CONTROL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "".join(PAIR)]


def tiny_causal(
    architecture: str, layers: int = LAYERS, embedding_size: int = EMBEDDING_SIZE, **more: Any
) -> Any:
    """Transformers' model, the same weights for the same arguments."""
    config_class, model_class = CLASSES[architecture]
    torch.manual_seed(0)
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": embedding_size,
        "intermediate_size": 2 * embedding_size,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "tie_word_embeddings": False,
        "initializer_range": 0.2,  # each token is said of its own accord, and not the last one again
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    model = model_class(config_class(**sizes | more)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("q_proj.weight"):
                parameter.mul_(0.25)  # so that all positions are attended to
            elif name.endswith("bias"):  # Qwen's, of queries, keys and values; zero in a fresh model
                parameter.normal_(std=0.2)
    return model


def write_gguf(model: Any, file: Path, words: bool = False) -> Path:
    """As llama.cpp's own converter names and turns the weights. With `words` it has a tokenizer."""
    config, architecture = model.config, model.config.model_type
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    if words:
        _add_tokenizer(writer)
    else:
        writer.add_tokenizer_model("none")
    known = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(known, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        values = tensor.float().numpy()
        layer = name.split(".")[-2]
        if architecture == "llama" and layer in heads:
            values = interleaved(values, heads[layer])
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(WORDS)
    control, plain = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if word in CONTROL else plain for word in WORDS])
    writer.add_token_merges([" ".join(PAIR)])
    writer.add_eos_token_id(CONTROL.index("<|im_end|>"))
    writer.add_pad_token_id(CONTROL.index("<|endoftext|>"))
    writer.add_chat_template(CHAT_TEMPLATE)


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head in the order 0, n/2, 1, n/2 + 1, ...: of the architecture "llama" the rotary embedding turns
    neighbours, where Transformers turns a head's two halves."""
    first, second = np.split(weight.reshape(heads, -1, weight.shape[1]), 2, axis=1)
    return np.stack([first, second], axis=2).reshape(weight.shape)


def save_lora(model: Any, folder: Path, rank: int = 4, seed: int = 1, **more: Any) -> Path:
    """A random LoRA on every linear layer, in PEFT's own files. The model is left as it was."""
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LINEAR, task_type="CAUSAL_LM", **more)
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.15)
    adapted.save_pretrained(folder, save_embedding_layers=False)
    adapted.unload()
    return folder


def tiny_gguf_with_words(folder: Path, **more: Any) -> Path:
    """A whole GGUF file, tokenizer included, as a preset names it."""
    model = tiny_causal("qwen2", vocab_size=len(WORDS), **more)
    return write_gguf(model, folder / "tiny.gguf", words=True)
