"""What every picture encoder is to the rest of the model. Those that there are, and ENCODERS: vlm/model/encoders.py."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn


class Encoder(nn.Module):
    """Pictures -> patch features. Each kind writes `preprocess` and `forward`, and has as attributes or properties

    feature_count  N, how many features a picture has
    feature_size   Dv, the channels of each
    image_size     pixels a side of what it is shown, if it can be shown tiles
    classifier     a linear layer, the mean of the features' first channels -> scores of `classes`, if it has any: for tags
    classes        their names; an aligner that is told of them also wants `meanings`, a definition of each
    """

    def preprocess(self, image: Image.Image) -> Tensor:
        """RGB picture of any size -> what `forward` takes of it, mostly [3, S, S]; the same shape for every picture."""
        raise NotImplementedError

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, ...], each as `preprocess` gives it -> patch features [B, N, Dv], on the encoder's own device."""
        raise NotImplementedError

    def see(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB pictures of any size -> patch features [B, N, Dv], in one batch."""
        return self(torch.stack([self.preprocess(image) for image in images]))

    def train(self, mode: bool = True) -> "Encoder":
        """Stay in evaluation mode: batch norm must not follow the training pictures, nor dropout leave anything out."""
        return super().train(False)
