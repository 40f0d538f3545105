"""Tiny random LLaVAs, saved as folders in the two forms that the hub has. Everything is Transformers' own class, and the
weights are large enough that pictures and positions matter."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from tests.tiny import CHAT_TEMPLATE
from tests.tiny import CONTROL as CHATML
from tests.tiny_gguf import LINEAR, PAIR, WORDS
from vlm.config import ModelConfig
from vlm.config_reader import from_dict, read_yaml
from vlm.model.adapter import save_adapter
from vlm.model.chat_templates import VICUNA
from vlm.model.vlm import build_model

SIDE, PATCH, IMAGE_TOKEN = 32, 8, "<image>"
CONTROL = ["<unk>", "<s>", "<|endoftext|>", "</s>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
QWEN_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PHI_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
# As llava-hf has it: messages are parts
LLAVA_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}{% endfor %}"
    "{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def pairs_tokenizer(template: str | None, begins: bool) -> PreTrainedTokenizerFast:
    """Llama 2's and Phi-3's kind: characters merged in pairs, bytes for the others, a space in front of every text. With
    `begins`, <s> in front of it as well."""
    letters = sorted({*"\u2581", *map(chr, range(33, 127))})
    merges = [
        ("\u2581", "W"),
        ("h", "a"),
        ("ha", "t"),
        ("\u2581W", "hat"),
        ("\u2581", "i"),
        ("\u2581i", "s"),
        ("s", "t"),
    ]
    words = [*CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *map("".join, merges)]
    model = models.BPE(
        vocab={word: place for place, word in enumerate(words)},
        merges=merges,
        unk_token="<unk>",
        byte_fallback=True,
        fuse_unk=True,
    )
    backend = Tokenizer(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    for token in CONTROL:  # Phi-3's but for three swallow the spaces behind them
        swallows = not begins and token not in CONTROL[:3]
        backend.add_special_tokens([AddedToken(token, special=True, normalized=False, rstrip=swallows)])
    if begins:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", chat_template=template
    )


def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """Qwen's kind, with the words of tests/tiny_gguf.py."""
    backend = Tokenizer(models.BPE(vocab={word: place for place, word in enumerate(WORDS)}, merges=[PAIR]))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_CUT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CHATML])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
    )


TOKENIZERS = {
    "phi3": lambda: pairs_tokenizer(PHI_TEMPLATE, begins=False),
    "llama": lambda: pairs_tokenizer(None, begins=True),
    "qwen2": bytes_tokenizer,
}
TARGETS = {"phi3": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"], "llama": LINEAR, "qwen2": LINEAR}
TEXT_CONFIGS: dict[str, Any] = {"phi3": Phi3Config, "llama": LlamaConfig, "qwen2": Qwen2Config}


def text_config(architecture: str, vocabulary: int, **more: Any) -> Any:
    sizes = {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.2,
        "bos_token_id": 1,
        "eos_token_id": 3,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
    }
    return TEXT_CONFIGS[architecture](**sizes | more)


def vision_config(**more: Any) -> CLIPVisionConfig:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    return CLIPVisionConfig(**sizes | {"image_size": SIDE, "patch_size": PATCH, "projection_dim": 16} | more)


def save_llava(folder: Path, architecture: str, strategy: str = "default", **more: Any) -> Path:
    """A whole LLaVA in Transformers' form, with its processor."""
    torch.manual_seed(0)
    tokenizer = TOKENIZERS[architecture]()
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    config = LlavaConfig(
        vision_config=vision_config(),
        text_config=text_config(architecture, len(tokenizer) + 3),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        vision_feature_select_strategy=strategy,
        **more,
    )
    llava = LlavaForConditionalGeneration(config).eval()
    enlarge(llava)
    speak_in_letters(llava, tokenizer)
    llava.save_pretrained(folder)
    processor = LlavaProcessor(
        image_processor=LlavaImageProcessorPil(
            do_pad=True, size={"height": SIDE, "width": SIDE}, crop_size={"height": SIDE, "width": SIDE}
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy=strategy,
        chat_template=LLAVA_TEMPLATE if architecture == "llama" else None,
        num_additional_image_tokens=1,
    )
    processor.save_pretrained(folder)
    return folder


@torch.no_grad()
def speak_in_letters(model: Any, tokenizer: Any) -> None:
    """Give all tokens but letters and digits the score 0, which some letter is always above."""
    words = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    spoken = [word.isascii() and word.isalnum() and len(word) == 1 for word in words]
    spoken += [False] * (model.lm_head.weight.shape[0] - len(spoken))
    model.lm_head.weight[~torch.tensor(spoken)] = 0


@torch.no_grad()
def enlarge(llava: torch.nn.Module) -> None:
    """Make what a picture gives as large as text, and every bias count."""
    for name, parameter in llava.named_parameters():
        if "multi_modal_projector" in name and name.endswith("weight"):
            parameter.normal_(std=0.3)
        elif name.endswith("bias"):
            parameter.normal_(std=0.1)
        elif "vision" in name and parameter.ndim == 2 and "k_proj" not in name:  # else all attend to one
            parameter.mul_(2)


def rename_as_before(folder: Path) -> None:
    """Give the tower's weights the names that files of 2023 and 2024 have."""
    file = folder / "model.safetensors"
    renamed = {
        name.replace("vision_tower.", "vision_tower.vision_model."): value
        for name, value in load_file(file).items()
    }
    save_file(renamed, file, metadata={"format": "pt"})


def save_tiny_adapter(folder: Path, architecture: str, kind: str = "mlp", **vision: Any) -> Path:
    """A CLIP, a language model, and an adapter for them as training makes it: connector and LoRA are random."""
    torch.manual_seed(1)
    tokenizer = TOKENIZERS[architecture]()
    tokenizer.chat_template = tokenizer.chat_template or VICUNA
    sizes = text_config(architecture, len(tokenizer))
    language = AutoModelForCausalLM.from_config(sizes)
    speak_in_letters(language, tokenizer)
    language.save_pretrained(folder / "language")
    tokenizer.save_pretrained(folder / "language")
    tower = CLIPVisionModelWithProjection(vision_config())
    enlarge(tower)
    tower.save_pretrained(folder / "clip")
    described = {
        "name": "tiny",
        "vision": {"encoder": "clip", "weights": str(folder / "clip"), "features": "grid", "tags": 0}
        | vision,
        "connector": {"kind": kind, "hidden": 48},
        "language": {"weights": str(folder / "language"), "dtype": "float32"},
        "lora": {"rank": 4, "alpha": 8, "targets": TARGETS[architecture]},
        "answers": {"image_system": "", "max_new_tokens": 8, "repetition_penalty": 1.0},
    }
    config = from_dict(ModelConfig, described, "tiny")
    model = build_model(config, "cpu")
    model.language.add_lora(config.lora)
    with torch.no_grad():
        for parameter in [*model.language.lora_parameters(), *model.connector.parameters()]:
            parameter.normal_(std=0.2)
        model.connector.standardise(torch.randn(50, model.eyes.vision.feature_size) * 2 + 0.5)
    save_adapter(model, folder / "tiny-adapter", config, {}, torch.float32)
    return folder / "tiny-adapter"


def save_lora_checkpoint(folder: Path, adapter: Path) -> Path:
    """The adapter in the form of the original LLaVA code: PEFT's files, pickles among them, and the projector's weights."""
    described = read_yaml(adapter / "config.yaml")["model"]
    folder.mkdir()
    original = {
        "model_type": "llava",
        "mm_vision_tower": described["vision"]["weights"],
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
    }
    (folder / "config.json").write_text(json.dumps(original))
    facts = json.loads((adapter / "lora" / "adapter_config.json").read_text())
    facts["base_model_name_or_path"] = described["language"]["weights"]
    (folder / "adapter_config.json").write_text(json.dumps(facts))
    torch.save(load_file(adapter / "lora" / "adapter_model.safetensors"), folder / "adapter_model.bin")
    projector = load_file(adapter / "projector.safetensors")
    scaled = projector["layers.0.weight"] / projector["normalise.deviation"]
    trained = {
        "0.weight": scaled,
        "0.bias": projector["layers.0.bias"] - scaled @ projector["normalise.mean"],
        "2.weight": projector["layers.2.weight"],
        "2.bias": projector["layers.2.bias"],
    }
    pickled = {f"base_model.model.model.mm_projector.{name}": value for name, value in trained.items()}
    torch.save(pickled, folder / "non_lora_trainables.bin")
    return folder
