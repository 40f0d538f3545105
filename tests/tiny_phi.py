"""A tiny Phi-3 and a tiny CLIP with random weights, saved as folders as the hub has them, and a preset that names them.
Nothing is downloaded; everything is the library's own class."""

import string
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPModel,
    GenerationConfig,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedTokenizerFast,
)

from vlm.config import ModelConfig, load_model_config
from vlm.config_reader import PartConfig, to_dict

PHI_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}"
    "{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}"
    "{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}"
    "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI_CONTROL = ["<unk>", "<s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]
GEMMA_CONTROL = ["<unk>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"]


def tokenizer_with(control: list[str], template: str) -> PreTrainedTokenizerFast:
    """One token a character, and control tokens: unknown, begin, end of text, and the template's own."""
    characters = [*control, *string.printable, "\ue000", "\ue001"]
    backend = Tokenizer(
        models.WordLevel({token: index for index, token in enumerate(characters)}, unk_token=control[0])
    )
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(token, special=True) for token in control])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=control[0],
        bos_token=control[1],
        eos_token=control[2],
        pad_token=control[2],
        chat_template=template,
    )


def phi_tokenizer() -> PreTrainedTokenizerFast:
    """Phi-3.5's control tokens and template; as there, padding is the end of the text."""
    return tokenizer_with(PHI_CONTROL, PHI_TEMPLATE)


def save_phi(folder: Path) -> None:
    torch.manual_seed(0)
    tokenizer = phi_tokenizer()
    end = tokenizer.eos_token_id
    config = Phi3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        bos_token_id=1,
        eos_token_id=end,
        pad_token_id=end,
        initializer_range=0.3,
    )
    phi = Phi3ForCausalLM(config)
    phi.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=end, pad_token_id=end)
    phi.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_clip(folder: Path) -> None:
    """Both halves, as the real checkpoint has them."""
    torch.manual_seed(0)
    half = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    vision = half | {"image_size": 32, "patch_size": 16, "projection_dim": 16}
    text = half | {"vocab_size": 50, "projection_dim": 16, "bos_token_id": 1, "eos_token_id": 2}
    CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=16)).save_pretrained(folder)


def tiny_phi_config(folder: Path) -> ModelConfig:
    """The preset phi-3.5 with its two models exchanged for tiny ones, saved below `folder`."""
    save_phi(folder / "phi")
    save_clip(folder / "clip")
    config = load_model_config("phi-3.5")
    return replace(
        config,
        name="tiny-phi",
        vision=replace(config.vision, weights=str(folder / "clip")),
        connector=PartConfig("norm-mlp", {"hidden": 64}),
        language=replace(config.language, weights=str(folder / "phi")),
        lora=replace(config.lora, rank=4),
        answers=replace(config.answers, max_new_tokens=12, repetition_penalty=1.0),
    )


def save_preset(config: ModelConfig, folder: Path) -> str:
    file = folder / "tiny-phi.yaml"
    file.write_text(yaml.safe_dump(to_dict(config)), encoding="utf-8")
    return str(file)
