"""Pictures -> patch features and tags. The encoder is frozen: it is never trained and always in evaluation mode.

Besides its features the encoder's own classifier names what it sees. These names enter the prompt as text ("object
tags", as in Oscar, arXiv:2004.06165, and Tag2Text, arXiv:2303.05657): a language model with a few thousand training
pictures would otherwise have to learn every object of the world anew.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from vlm.config import VisionConfig
from vlm.errors import UserError
from vlm.images import pad_to_square
from vlm.weights import resolve

IMAGENET_CLASSES = Path(__file__).parent / "imagenet_classes.txt"


class Sight(NamedTuple):
    """What the encoder makes of one picture: `patch_features` [N, Dv], and `tags`, text for the prompt ("" for none)."""

    patch_features: Tensor
    tags: str


class EfficientNetLite2(nn.Module):
    """EfficientNet-Lite2 (arXiv:1905.11946) -> one pooled and `grid * grid` patch features of 1280 channels."""

    feature_size = 1280

    def __init__(self, weights_folder: Path, image_size: int, grid: int, tags: int) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        self.network = EfficientNet.from_name("efficientnet-lite2")
        (file,) = weights_folder.glob("*.pth")
        self.network.load_state_dict(torch.load(file, weights_only=True, map_location="cpu"))
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on a CPU
        self.image_size, self.grid, self.tag_count = image_size, grid, tags
        self.classes = IMAGENET_CLASSES.read_text(encoding="utf-8").splitlines()
        self.requires_grad_(False).eval()

    @property
    def feature_count(self) -> int:
        return 1 + self.grid**2

    def train(self, mode: bool = True) -> "EfficientNetLite2":
        """Stay in evaluation mode: batch norm must not follow the training pictures."""
        return super().train(False)

    def preprocess(self, image: Image.Image) -> Tensor:
        """RGB picture of any size -> [3, S, S] in about -1 to 1; padded to a square, never cropped."""
        side = self.image_size
        square = pad_to_square(image).resize((side, side), Image.Resampling.BICUBIC)
        return (torch.from_numpy(np.array(square)).permute(2, 0, 1).float() - 127.0) / 128.0

    @torch.inference_mode()
    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, S, S] -> patch features [B, 1 + grid^2, 1280] and class probabilities [B, 1000]."""
        weight = self.network._fc.weight
        pixels = pixels.to(weight.device, weight.dtype, memory_format=torch.channels_last)
        feature_map = self.network.extract_features(pixels)  # [B, 1280, S/32, S/32]
        pooled = feature_map.mean((2, 3))
        cells = functional.adaptive_avg_pool2d(feature_map, self.grid).flatten(2).transpose(1, 2)
        patch_features = torch.cat([pooled.unsqueeze(1), cells], dim=1)
        return patch_features, self.network._fc(pooled).softmax(-1)

    def see(self, images: Sequence[Image.Image]) -> list[Sight]:
        """Encode RGB pictures in one batch."""
        patch_features, probabilities = self(torch.stack([self.preprocess(image) for image in images]))
        return [
            Sight(features, self._tags(row))
            for features, row in zip(patch_features, probabilities, strict=True)
        ]

    def _tags(self, probabilities: Tensor) -> str:
        """Class probabilities [1000] -> "espresso 9, cup 0, eggnog 0": names with their probability in tenths."""
        if not self.tag_count:
            return ""
        top = probabilities.topk(self.tag_count)
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return ", ".join(f"{self.classes[index]} {int(10 * value)}" for index, value in pairs)


ENCODERS = {"efficientnet-lite2": EfficientNetLite2}


def build_vision(config: VisionConfig) -> EfficientNetLite2:
    if config.encoder not in ENCODERS:
        raise UserError(f"There is no vision encoder {config.encoder!r}. Valid: {', '.join(ENCODERS)}.")
    encoder = ENCODERS[config.encoder]
    return encoder(resolve(config.weights), config.image_size, config.grid, config.tags)
