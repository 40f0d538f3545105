"""Pictures -> CLIP's features (arXiv:2103.00020): the projected embedding of the picture, or the patches of a layer.

Unusual: the picture is padded to a square instead of cropped to its middle, as LLaVA-1.5 does, so that nothing at its
sides is lost; the preprocessing needs no torchvision.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from vlm.errors import UserError
from vlm.inputs.images import pad_to_square

FEATURES = ("pooled", "patches")


class Clip(nn.Module):
    """`pooled`: [B, 1, P], what `get_image_features` gives. `patches`: [B, 1 + patches, Dv], class token first, of the
    hidden `layer` counted from the end."""

    def __init__(self, network: CLIPVisionModelWithProjection, features: str, layer: int) -> None:
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
        return 1 if self.features == "pooled" else 1 + (config.image_size // config.patch_size) ** 2

    def preprocess(self, image: Image.Image) -> Tensor:
        """RGB picture of any size -> [3, S, S], normalised as CLIP was trained."""
        square = pad_to_square(image).resize((self.image_size, self.image_size), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1) / 255.0
        mean, deviation = torch.tensor(OPENAI_CLIP_MEAN), torch.tensor(OPENAI_CLIP_STD)
        return (pixels - mean[:, None, None]) / deviation[:, None, None]

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, S, S] -> patch features [B, N, Dv]"""
        pixels = pixels.to(self.network.device, self.network.dtype)
        if self.features == "pooled":
            return self.network(pixels).image_embeds.unsqueeze(1)
        return self.network(pixels, output_hidden_states=True).hidden_states[self.layer]

    def see(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB pictures of any size -> patch features [B, N, Dv], in one batch."""
        return self(torch.stack([self.preprocess(image) for image in images]))


class _VisionHalf(CLIPVisionModelWithProjection):
    _keys_to_ignore_on_load_unexpected = [r"^text_", r"^logit_scale"]  # the other half is no reason to warn


def clip_dtype(device: str) -> torch.dtype:
    """float16 on a GPU, as CLIP was trained; a CPU is faster with float32."""
    return torch.float16 if device.startswith("cuda") else torch.float32


def load_clip(weights_folder: Path, features: str, layer: int, device: str = "cpu") -> Clip:
    """The vision half of a CLIP checkpoint."""
    network = _VisionHalf.from_pretrained(weights_folder, dtype=clip_dtype(device))
    return Clip(network.to(device), features, layer)
