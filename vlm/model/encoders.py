"""Pictures -> patch features. The encoder is frozen: it is never trained and always in evaluation mode."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from vlm.config import VisionConfig
from vlm.errors import UserError
from vlm.inputs.images import pad_to_square
from vlm.model.embeddings import load_precomputed
from vlm.model.encoder import Encoder
from vlm.model.tiles import Tiled
from vlm.weights.resolve import plain_weight_errors, resolve, sha256_of

MEAN, DEVIATION = 127.0, 128.0  # of a pixel's 0 to 255, with which the weights were trained
STRIDE = 32  # pixels a side that one cell of the last map stands for
IMAGENET_CLASSES = Path(__file__).parent / "imagenet_classes.txt"
# Their definitions in the same order: WordNet 3.0, Copyright 2006 by Princeton University
IMAGENET_MEANINGS = Path(__file__).parent / "imagenet_meanings.txt"


class EfficientNetLite2(Encoder):
    """EfficientNet-Lite2 (arXiv:1905.11946) -> a feature for each cell of its last map, row by row.

    A feature's channels are the 1280 of the last map, and behind them those of the maps that `blocks`, counted from 0,
    give, averaged over the cell: what colour a thing has is lost on the way up."""

    def __init__(self, weights_folder: Path, image_size: int, blocks: Sequence[int] = ()) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        self.network = EfficientNet.from_name("efficientnet-lite2")
        (file,) = weights_folder.glob("*.pth")
        self.network.load_state_dict(torch.load(file, weights_only=True, map_location="cpu"))
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on a CPU
        self.image_size, self.blocks = image_size, tuple(blocks)
        count = len(self.network._blocks)
        if not all(0 <= place < count for place in self.blocks):
            raise UserError(f"vision.blocks are numbers from 0 to {count - 1}, and {list(blocks)} was given.")
        inner = sum(self.network._blocks[place]._block_args.output_filters for place in self.blocks)
        self.feature_size = self.classifier.in_features + inner
        self.classes = IMAGENET_CLASSES.read_text(encoding="utf-8").splitlines()
        self.meanings = IMAGENET_MEANINGS.read_text(encoding="utf-8").splitlines()
        self.requires_grad_(False).eval()

    @property
    def feature_count(self) -> int:
        return (self.image_size // STRIDE) ** 2

    @property
    def classifier(self) -> nn.Linear:
        """The mean of the last map [1280] -> scores of `classes`, the 1,000 of ImageNet."""
        return self.network._fc

    def preprocess(self, image: Image.Image) -> Tensor:
        """RGB picture of any size -> [3, S, S] in about -1 to 1; padded to a square, never cropped."""
        side = self.image_size
        square = pad_to_square(image).resize((side, side), Image.Resampling.BICUBIC)
        return (torch.from_numpy(np.array(square)).permute(2, 0, 1).float() - MEAN) / DEVIATION

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, S, S] -> patch features [B, (S / 32)^2, Dv]"""
        weight = self.classifier.weight
        pixels = pixels.to(weight.device, weight.dtype, memory_format=torch.channels_last)
        last, *inner = self._maps(pixels)
        cells = [last, *(functional.adaptive_avg_pool2d(each, last.shape[-2:]) for each in inner)]
        return torch.cat(cells, dim=1).flatten(2).transpose(1, 2)

    def _maps(self, pixels: Tensor) -> list[Tensor]:
        """The last feature map [B, 1280, S/32, S/32], then those of `blocks`."""
        network, maps = self.network, []
        x = network._swish(network._bn0(network._conv_stem(pixels)))
        for place, block in enumerate(network._blocks):
            x = block(x)
            if place in self.blocks:
                maps.append(x)
        return [network._swish(network._bn1(network._conv_head(x))), *maps]


ENCODERS: dict[str, tuple[str, ...]] = {  # the fields of `VisionConfig` that its features depend on
    "efficientnet-lite2": ("encoder", "weights", "image_size", "blocks"),
    "clip": ("encoder", "weights", "features", "layer"),
    "transformers": ("encoder", "weights", "features", "layer"),
    "embeddings": ("encoder", "weights"),
}


def describe_features(config: VisionConfig) -> dict[str, Any]:
    """What tells the features of one encoder from those of another."""
    if config.encoder not in ENCODERS:
        raise UserError(f"There is no vision encoder {config.encoder!r}. Valid: {', '.join(ENCODERS)}.")
    told = {name: getattr(config, name) for name in ENCODERS[config.encoder]}
    if config.encoder == "embeddings" and Path(config.weights).expanduser().is_file():
        told["sha256"] = sha256_of(Path(config.weights).expanduser())
    return told | ({"tiles": config.tiles} if config.tiles else {})


def build_encoder(config: VisionConfig, device: str = "cpu") -> Encoder:
    """The encoder with its weights, and with its tiles where `config` has any."""
    check_encoder(config)
    return in_tiles(_load(config, device), config.tiles)


def check_encoder(config: VisionConfig) -> None:
    """Raise UserError for what no weights are needed to see."""
    describe_features(config)
    if config.encoder != "efficientnet-lite2" and config.tags:
        name = "CLIP" if config.encoder == "clip" else f"The encoder {config.encoder!r}"
        raise UserError(f"{name} has no classes of its own to name what is seen. Set vision.tags to 0.")
    if config.tiles < 0 or (config.tiles and config.encoder == "embeddings"):
        raise UserError(f"vision.tiles must be 0 or more, and 0 for embeddings; {config.tiles} was given.")
    if config.encoder == "efficientnet-lite2" and config.image_size % STRIDE:
        raise UserError(
            f"vision.image_size must be a multiple of {STRIDE}, and {config.image_size} was given."
        )


def in_tiles(encoder: Encoder, tiles: int) -> Encoder:
    """The encoder, with the picture's tiles beside the whole picture if there are any."""
    return Tiled(encoder, tiles) if tiles else encoder


def _load(config: VisionConfig, device: str) -> Encoder:
    if config.encoder == "efficientnet-lite2":
        return EfficientNetLite2(resolve(config.weights), config.image_size, config.blocks).to(device)
    if config.encoder == "embeddings":
        return load_precomputed(config.weights)
    with plain_weight_errors(config.weights):  # Transformers' models take a second to import
        from transformers import AutoConfig

        from vlm.model.vision_transformer import load_clip, load_transformer

        folder = resolve(config.weights)
        if config.encoder == "clip":
            return load_clip(folder, config.features, config.layer, device)
        sizes = AutoConfig.from_pretrained(folder)
        return load_transformer(folder, sizes, config.features, config.layer, device)
