"""A whole vision-language model of real modules, small enough to train in a test: 16-pixel pictures, a two-layer Llama
and a tokenizer of characters with ChatML control tokens. Nothing is downloaded."""

import string
from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from vlm.chat.local_writer import LocalWriter, Sights
from vlm.chat.reply import Pipeline
from vlm.config import LoraConfig, ModelConfig
from vlm.config_reader import PartConfig
from vlm.engines.torch_engine import TorchEngine
from vlm.model.connectors import build_connector
from vlm.model.eyes import Eyes
from vlm.model.fusion import build_fusion, fusion_settings
from vlm.model.language import LanguageModel
from vlm.model.prompts import Batch, PromptTurn, collate
from vlm.model.tags import Tagger
from vlm.model.vlm import VisionLanguageModel

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SYSTEM = "Look."
PREFIX = PartConfig("prefix")


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
    classes = ("ant", "bee", "cat", "dog", "eel")
    meanings = ("it bites", "it stings", "it purrs", "it barks", "it swims")

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, self.feature_size, kernel_size=8, stride=8)
        self.classifier = nn.Linear(self.feature_size, len(self.classes))
        self.requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.convolution(pixels).flatten(2).transpose(1, 2)

    def preprocess(self, image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(image.resize((16, 16)))).permute(2, 0, 1) / 255

    def see(self, images: list[Image.Image]) -> Tensor:
        return self(torch.stack([self.preprocess(image) for image in images]))


def tiny_eyes(tags: int = 0, fusion: PartConfig = PREFIX) -> Eyes:
    """`tags`: how many names a picture gets at most; 0 for no tagger."""
    vision = TinyVision()
    connector = build_connector(PartConfig("mlp", {"hidden": 16}), vision.feature_size, 32)
    tagger = Tagger(vision.classifier, vision.classes, tags) if tags else None
    return Eyes(vision, connector, fusion_settings(fusion).positions(vision.feature_count), tagger)


def tiny_model(lora: bool = True, tags: int = 0, fusion: PartConfig = PREFIX) -> VisionLanguageModel:
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
    language = LanguageModel(llama, tokenizer)
    eyes = tiny_eyes(tags, fusion)
    model = VisionLanguageModel(eyes, build_fusion(fusion, language.causal), language)
    if lora:
        model.language.add_lora(LoraConfig(rank=4, alpha=8))
    return model


def tiny_pipeline(model: VisionLanguageModel, context: int = 1024) -> Pipeline:
    """The one reply pipeline over the torch engine. A token is a character, and `context` of them fit."""
    engine = TorchEngine(model.language, "CPU", context, 2 * context, model.fusion)
    return Pipeline(LocalWriter(engine, model.language.tokenizer, Sights(model.eyes)), SYSTEM)


def shake_lora(model: VisionLanguageModel) -> None:
    """Give the LoRA an effect; a fresh one has none."""
    with torch.no_grad():
        for parameter in model.language.lora_parameters():
            parameter.normal_(std=0.3)


def colour_batch(model: VisionLanguageModel, answers: Mapping[str, str]) -> tuple[Batch, Tensor]:
    """{colour: answer} -> a batch that asks "Which?" about a picture of each, and their patch features [B, N, Dv]."""
    features = model.eyes.vision.see([picture(name) for name in answers])
    pairs = zip(answers.values(), model.eyes.name(features), strict=True)
    turns = [[PromptTurn("Which?", answer, (tags,))] for answer, tags in pairs]
    return collate([model.encode(each, SYSTEM) for each in turns], model.language.pad_id), features


def overfit(model: VisionLanguageModel, answers: Mapping[str, str], steps: int = 100) -> float:
    """Train connector and LoRA until each colour has its answer; gives the last loss."""
    batch, features = colour_batch(model, answers)
    parameters = [each for part in model.train_only("projector+lora").values() for each in part]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(**batch._asdict(), patch_features=features)["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    model.eval()
    return loss.item()


def tiny_config() -> ModelConfig:
    return ModelConfig(name="tiny", lora=LoraConfig(rank=4, alpha=8))


def picture(colour: str) -> Image.Image:
    return Image.new("RGB", (16, 16), colour)
