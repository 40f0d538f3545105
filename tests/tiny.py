"""A whole vision-language model of real modules, small enough to train in a test: 16-pixel pictures, a two-layer Llama
and a word tokenizer with ChatML control tokens. Nothing is downloaded."""

import string

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from vlm.config import LoraConfig, ModelConfig
from vlm.model.connectors import MlpProjector, Standardise
from vlm.model.eyes import Eyes
from vlm.model.language import LanguageModel
from vlm.model.vlm import VisionLanguageModel

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character, and three control tokens."""
    characters = [*CONTROL, *string.printable, "\ue000", "\ue001"]
    backend = Tokenizer(
        models.WordLevel({token: index for index, token in enumerate(characters)}, unk_token="<|endoftext|>")
    )
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE,
    )


class TinyVision(nn.Module):
    """[B, 3, 16, 16] -> [B, 4, 8]: a real convolution, frozen, with the surface of the shipped encoder."""

    feature_size, feature_count = 8, 4

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, self.feature_size, kernel_size=8, stride=8)
        self.requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.convolution(pixels).flatten(2).transpose(1, 2)

    def preprocess(self, image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(image.resize((16, 16)))).permute(2, 0, 1) / 255

    def see(self, images: list[Image.Image]) -> Tensor:
        return self(torch.stack([self.preprocess(image) for image in images]))


def tiny_model(lora: bool = True) -> VisionLanguageModel:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=2,
        bos_token_id=1,
        pad_token_id=0,
        tie_word_embeddings=True,
        initializer_range=0.3,  # large enough for confident predictions with frozen embeddings
    )
    llama = LlamaForCausalLM(config)
    llama.generation_config = GenerationConfig(eos_token_id=2, bos_token_id=1, pad_token_id=0)
    eyes = Eyes(TinyVision(), MlpProjector(Standardise(8), 8, 16, 32), TinyVision.feature_count, None)
    model = VisionLanguageModel(eyes, LanguageModel(llama, tokenizer))
    if lora:
        model.language.add_adapter(LoraConfig(rank=4, alpha=8))
    return model


def tiny_config() -> ModelConfig:
    return ModelConfig(name="tiny", lora=LoraConfig(rank=4, alpha=8))


def picture(colour: str) -> Image.Image:
    return Image.new("RGB", (16, 16), colour)
