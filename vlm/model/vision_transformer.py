"""Pictures -> the features of any vision transformer that Transformers knows (ViT, DeiT, BEiT, DINOv2, SigLIP and others
of their kind), and of CLIP, which also has one embedding for the whole picture. No remote code is run.

The configuration alone says which class it is. The picture is padded to a square, never cropped. The preprocessing, but for
CLIP's, is read from preprocessor_config.json as plain numbers, and needs no torchvision.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModel, CLIPVisionModel, CLIPVisionModelWithProjection
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.utils import logging as transformers_logging

from vlm.errors import UserError
from vlm.inputs.images import WHITE, pad_to_square
from vlm.model.checkpoints import is_llava
from vlm.model.encoder import Encoder
from vlm.model.llava import load_tower

HALF = (0.5, 0.5, 0.5)  # mean and deviation where the folder does not say, as of ViT and SigLIP
UNUSED = ("pooler.", "head.")  # weights behind the hidden layers, which checkpoints may lack


class VisionTransformer(Encoder):
    """[B, 3, S, S] -> [B, N, Dv]. `features`: "patches", with the class token and registers that stand before them, or
    "grid", the patches alone, row by row. `layer` counts from the end; -1 is the last, behind its norm."""

    kind, padding = "A vision transformer", WHITE
    choices: tuple[str, ...] = ("patches", "grid")

    def __init__(
        self, network: Any, features: str, layer: int, mean: Sequence[float], deviation: Sequence[float]
    ) -> None:
        super().__init__()
        config = network.config
        if features not in self.choices:
            valid = ", ".join(self.choices)
            raise UserError(f"{self.kind} has no features {features!r}. Valid for vision.features: {valid}.")
        if not -config.num_hidden_layers <= layer <= -1:
            raise UserError(
                f"vision.layer must be between -{config.num_hidden_layers} and -1, and {layer} was given."
            )
        self.network, self.features, self.layer = network, features, layer
        self.mean, self.deviation = mean, deviation
        self.image_size = int(config.image_size)
        self.before = self._tokens_before()
        self.requires_grad_(False).eval()

    @property
    def _patches(self) -> int:
        return (self.image_size // int(self.network.config.patch_size)) ** 2

    def _tokens_before(self) -> int:
        """How many tokens the network makes before those of the patches, found by an outline without weights."""
        with torch.device("meta"):
            outline = AutoModel.from_config(self.network.config)
            seen = outline(torch.zeros(1, 3, self.image_size, self.image_size))
        return seen.last_hidden_state.shape[1] - self._patches

    @property
    def feature_size(self) -> int:
        return int(self.network.config.hidden_size)

    @property
    def feature_count(self) -> int:
        return self._patches + (self.before if self.features == "patches" else 0)

    def preprocess(self, image: Image.Image) -> Tensor:
        """RGB picture of any size -> [3, S, S], normalised as the encoder was trained."""
        size = (self.image_size, self.image_size)
        square = pad_to_square(image, self.padding).resize(size, Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1) / 255.0
        return (pixels - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.deviation)[:, None, None]

    def forward(self, pixels: Tensor) -> Tensor:
        pixels = pixels.to(self.network.device, self.network.dtype)
        seen = self.network(pixels, output_hidden_states=True)
        hidden = seen.last_hidden_state if self.layer == -1 else seen.hidden_states[self.layer]
        return hidden[:, self.before :] if self.features == "grid" else hidden


class Clip(VisionTransformer):
    """CLIP's half that sees (arXiv:2103.00020). `pooled`: [B, 1, P], what `get_image_features` gives. No norm is behind its
    last layer. The padding has CLIP's mean colour, as in LLaVA-1.5."""

    kind, padding = "CLIP", (122, 116, 104)  # of 255: OPENAI_CLIP_MEAN
    choices = ("pooled", "patches", "grid")

    def __init__(
        self, network: CLIPVisionModel | CLIPVisionModelWithProjection, features: str, layer: int
    ) -> None:
        super().__init__(network, features, layer, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)

    def _tokens_before(self) -> int:
        return 1  # the class token

    @property
    def feature_size(self) -> int:
        return self.network.config.projection_dim if self.features == "pooled" else super().feature_size

    @property
    def feature_count(self) -> int:
        return 1 if self.features == "pooled" else super().feature_count

    def forward(self, pixels: Tensor) -> Tensor:
        if self.features != "pooled":
            return super().forward(pixels)
        return self.network(pixels.to(self.network.device, self.network.dtype)).image_embeds.unsqueeze(1)


class _VisionHalf(CLIPVisionModelWithProjection):
    _keys_to_ignore_on_load_unexpected = [r"^text_", r"^logit_scale"]  # the other half is no reason to warn


def clip_dtype(device: str) -> torch.dtype:
    """float16 on a GPU, as CLIP was trained; a CPU is faster with float32."""
    return torch.float16 if device.startswith("cuda") else torch.float32


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


def load_clip(weights_folder: Path, features: str, layer: int, device: str = "cpu") -> Clip:
    """The vision half of a CLIP checkpoint, or the vision tower of a LLaVA."""
    if not is_llava(weights_folder):
        network = _VisionHalf.from_pretrained(weights_folder, dtype=clip_dtype(device))
    elif features == "pooled":
        raise UserError(
            "A LLaVA's vision tower has no pooled features. Set vision.features to grid or patches."
        )
    else:
        network = load_tower(weights_folder, clip_dtype(device))
    return Clip(network.to(device), features, layer)
