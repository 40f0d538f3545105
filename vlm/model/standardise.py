"""Fixed statistics of training features, channel by channel."""

import torch
from torch import Tensor, nn


def channel_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """[..., Dv] -> mean and deviation of each channel, [Dv]; one that hardly varies is not to be blown up. Where nothing
    varies, as in a single row, the deviations are 1."""
    flat = features.flatten(0, -2)
    deviation = flat.std(dim=0, correction=min(1, len(flat) - 1))
    least = 0.1 * float(deviation.mean())
    return flat.mean(dim=0), deviation.clamp(min=least) if least else torch.ones_like(deviation)


class Standardise(nn.Module):
    """Fixed statistics of the training pictures: what all pictures share is most of a convolutional feature, and
    would have to be unlearned before anything is told apart."""

    def __init__(self, feature_size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(feature_size))
        self.register_buffer("deviation", torch.ones(feature_size))

    @torch.no_grad()
    def take(self, features: Tensor) -> None:
        """The statistics of training features [..., Dv]."""
        mean, deviation = channel_statistics(features)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.deviation
