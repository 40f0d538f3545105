"""Pictures -> the features of any vision transformer that Transformers knows (ViT, DeiT, BEiT, DINOv2, SigLIP, CLIP and
others of their kind), from a folder or the hub, without remote code.

The configuration alone says which class it is. The picture is padded to a square, never cropped; the preprocessing is read
from preprocessor_config.json as plain numbers, and needs no torchvision.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

from vlm.errors import UserError
from vlm.inputs.images import pad_to_square
from vlm.model.clip import clip_dtype, normalised
from vlm.model.encoder import Encoder

FEATURES = ("patches", "grid")
HALF = (0.5, 0.5, 0.5)  # mean and deviation where the folder does not say, as of ViT and SigLIP
UNUSED = ("pooler.", "head.")  # weights behind the hidden layers, which checkpoints may lack


class VisionTransformer(Encoder):
    """[B, 3, S, S] -> [B, N, Dv]. `features`: "patches", with the class token and registers that stand before them, or
    "grid", the patches alone, row by row. `layer` counts from the end; -1 is the last, behind its norm."""

    def __init__(
        self, network: Any, features: str, layer: int, mean: Sequence[float], deviation: Sequence[float]
    ) -> None:
        super().__init__()
        config = network.config
        if features not in FEATURES:
            raise UserError(
                f"A vision transformer has no features {features!r}. Valid for vision.features: {', '.join(FEATURES)}."
            )
        if not -config.num_hidden_layers <= layer <= -1:
            raise UserError(
                f"vision.layer must be between -{config.num_hidden_layers} and -1, and {layer} was given."
            )
        self.network, self.features, self.layer = network, features, layer
        self.mean, self.deviation = mean, deviation
        self.image_size, self.feature_size = int(config.image_size), int(config.hidden_size)
        self.before = _tokens(config) - self._patches  # tokens before the patches
        self.requires_grad_(False).eval()

    @property
    def _patches(self) -> int:
        return (self.image_size // int(self.network.config.patch_size)) ** 2

    @property
    def feature_count(self) -> int:
        return self._patches + (self.before if self.features == "patches" else 0)

    def preprocess(self, image: Image.Image) -> Tensor:
        """RGB picture of any size -> [3, S, S], normalised as the encoder was trained."""
        return normalised(pad_to_square(image), self.image_size, self.mean, self.deviation)

    def forward(self, pixels: Tensor) -> Tensor:
        pixels = pixels.to(self.network.device, self.network.dtype)
        seen = self.network(pixels, output_hidden_states=True)
        hidden = seen.last_hidden_state if self.layer == -1 else seen.hidden_states[self.layer]
        return hidden[:, self.before :] if self.features == "grid" else hidden


def _tokens(config: Any) -> int:
    """How many tokens the network makes of a picture, found by an outline without weights."""
    with torch.device("meta"):
        outline = AutoModel.from_config(config)
        return outline(torch.zeros(1, 3, config.image_size, config.image_size)).last_hidden_state.shape[1]


def vision_half(config: Any, name: str) -> Any:
    """The configuration of a vision transformer, or of the vision half of a model of pictures and texts."""
    config = getattr(config, "vision_config", config)
    sizes = ("image_size", "patch_size", "hidden_size", "num_hidden_layers")
    if not all(isinstance(getattr(config, size, None), int) for size in sizes):
        raise UserError(
            f"{name!r} is no vision transformer of square pictures and patches: its config.json lacks one of "
            f"{', '.join(sizes)}. Compute its embeddings elsewhere and set vision.encoder to embeddings."
        )
    return config


def outline_transformer(config: Any, name: str, features: str, layer: int) -> VisionTransformer:
    """The encoder without weights, to count them."""
    with torch.device("meta"):
        network = AutoModel.from_config(vision_half(config, name))
    return VisionTransformer(network, features, layer, HALF, HALF)


def load_transformer(
    folder: Path, config: Any, features: str, layer: int, device: str = "cpu"
) -> VisionTransformer:
    """Raises UserError where the folder lacks weights that its config.json asks for."""
    transformers_logging.disable_progress_bar()
    network, told = AutoModel.from_pretrained(
        folder,
        config=vision_half(config, str(folder)),
        dtype=clip_dtype(device),
        use_safetensors=True,
        output_loading_info=True,
    )
    missing = sorted(name for name in told["missing_keys"] if not name.startswith(UNUSED))
    if missing:
        raise UserError(
            f"The weights in {folder} lack {', '.join(missing[:3])}. Copy all of the encoder's files."
        )
    mean, deviation = _normalisation(folder)
    return VisionTransformer(network.to(device), features, layer, mean, deviation)


def _normalisation(folder: Path) -> tuple[Sequence[float], Sequence[float]]:
    file = folder / "preprocessor_config.json"
    told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return told.get("image_mean") or HALF, told.get("image_std") or HALF
