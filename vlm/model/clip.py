"""Pictures -> CLIP's features (arXiv:2103.00020): the projected embedding of the picture, or what a layer has of it.

The picture is padded to a square with CLIP's mean colour instead of cropped to its middle, as LLaVA-1.5 does, so that
nothing at its sides is lost; the preprocessing needs no torchvision.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionModel, CLIPVisionModelWithProjection
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from vlm.errors import UserError
from vlm.inputs.images import pad_to_square
from vlm.model.checkpoints import is_llava
from vlm.model.encoder import Encoder
from vlm.model.llava import load_tower

MEAN_COLOUR = (122, 116, 104)  # of 255: OPENAI_CLIP_MEAN
FEATURES = ("pooled", "patches", "grid")


class Clip(Encoder):
    """`pooled`: [B, 1, P], what `get_image_features` gives. `patches`: [B, 1 + patches, Dv], class token first, of the
    hidden `layer` counted from the end. `grid`: the same without the class token, row by row."""

    def __init__(
        self, network: CLIPVisionModel | CLIPVisionModelWithProjection, features: str, layer: int
    ) -> None:
        super().__init__()
        depth = network.config.num_hidden_layers
        if features not in FEATURES:
            raise UserError(f"CLIP has no features {features!r}. Valid: {', '.join(FEATURES)}.")
        if not -depth <= layer <= -1:
            raise UserError(f"CLIP's layer must be between -{depth} and -1, and {layer} was given.")
        self.network, self.features, self.layer = network, features, layer
        self.image_size = network.config.image_size
        self.requires_grad_(False).eval()

    @property
    def feature_size(self) -> int:
        config = self.network.config
        return config.projection_dim if self.features == "pooled" else config.hidden_size

    @property
    def feature_count(self) -> int:
        config = self.network.config
        patches = (config.image_size // config.patch_size) ** 2
        return {"pooled": 1, "patches": 1 + patches, "grid": patches}[self.features]

    def preprocess(self, image: Image.Image) -> Tensor:
        """RGB picture of any size -> [3, S, S], normalised as CLIP was trained."""
        square = pad_to_square(image, MEAN_COLOUR)
        return normalised(square, self.image_size, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, S, S] -> patch features [B, N, Dv]"""
        pixels = pixels.to(self.network.device, self.network.dtype)
        if self.features == "pooled":
            return self.network(pixels).image_embeds.unsqueeze(1)
        hidden = self.network(pixels, output_hidden_states=True).hidden_states[self.layer]
        return hidden[:, 1:] if self.features == "grid" else hidden


class _VisionHalf(CLIPVisionModelWithProjection):
    _keys_to_ignore_on_load_unexpected = [r"^text_", r"^logit_scale"]  # the other half is no reason to warn


def normalised(square: Image.Image, size: int, mean: Sequence[float], deviation: Sequence[float]) -> Tensor:
    """A square RGB picture -> [3, S, S] of `size`, less the channels' means and over their deviations."""
    resized = square.resize((size, size), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255.0
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]


def clip_dtype(device: str) -> torch.dtype:
    """float16 on a GPU, as CLIP was trained; a CPU is faster with float32."""
    return torch.float16 if device.startswith("cuda") else torch.float32


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
