"""What every picture encoder is to the rest of the model."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn


class Encoder(nn.Module):
    """Pictures -> patch features, `feature_count` of a picture, each of `feature_size` channels."""

    def preprocess(self, image: Image.Image) -> Tensor:
        """RGB picture of any size -> what `forward` takes of it."""
        raise NotImplementedError

    def see(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB pictures of any size -> patch features [B, N, Dv], in one batch."""
        return self(torch.stack([self.preprocess(image) for image in images]))

    def train(self, mode: bool = True) -> "Encoder":
        """Stay in evaluation mode: batch norm must not follow the training pictures, nor dropout leave anything out."""
        return super().train(False)
