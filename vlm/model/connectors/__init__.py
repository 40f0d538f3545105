"""Patch features [B, N, Dv] -> visual tokens [B, K, Dl] in the language model's embedding space."""

import math

import torch
from torch import Tensor, nn

from vlm.config import ConnectorConfig
from vlm.errors import UserError


def channel_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """[..., Dv] -> mean and deviation of each channel, [Dv]; one that hardly varies is not to be blown up."""
    flat = features.flatten(0, -2)
    deviation = flat.std(dim=0)
    return flat.mean(dim=0), deviation.clamp(min=0.1 * float(deviation.mean()))


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


class MlpProjector(nn.Module):
    """Two linear layers with a GELU between, as LLaVA-1.5 (arXiv:2310.03744), behind `normalise`. [B, N, Dv] -> [B, K, Dl].

    `merge` x `merge` neighbouring cells become one visual token, their channels side by side (pixel shuffle, as in
    InternVL, arXiv:2404.16821): nothing is averaged away, and K = N / merge^2.
    """

    def __init__(
        self,
        normalise: nn.Module,
        feature_size: int,
        hidden_size: int,
        embedding_size: int,
        merge: int = 1,
    ) -> None:
        super().__init__()
        self.normalise, self.merge = normalise, merge
        self.layers = nn.Sequential(
            nn.Linear(feature_size * merge**2, hidden_size), nn.GELU(), nn.Linear(hidden_size, embedding_size)
        )
        self.noise = 0.0  # that training adds to the normalised features, in their deviations

    def standardise(self, patch_features: Tensor) -> None:
        """Take the statistics of training features [..., Dv], where these normalise."""
        if isinstance(self.normalise, Standardise):
            self.normalise.take(patch_features)

    @torch.no_grad()
    def scale_to(self, size: float, patch_features: Tensor) -> None:
        """Make fresh visual tokens as large as `size`, the root mean square of the text's embeddings: larger ones would
        drown the text until training has shrunk them."""
        last = self.layers[-1]
        factor = size / self(patch_features.to(last.weight)).square().mean().sqrt()
        last.weight.mul_(factor)
        last.bias.mul_(factor)

    def forward(self, patch_features: Tensor) -> Tensor:
        normalised = self.normalise(patch_features)
        if self.training and self.noise:
            normalised = normalised + self.noise * torch.randn_like(normalised)
        return self.layers(merge_cells(normalised, self.merge))


def merge_cells(cells: Tensor, merge: int) -> Tensor:
    """Cells of a square grid, row by row, [B, N, D] -> [B, N / merge^2, D * merge^2]"""
    if merge == 1:
        return cells
    side = math.isqrt(cells.shape[1])
    grid = cells.unflatten(1, (side // merge, merge, side // merge, merge))  # [B, rows, y, columns, x, D]
    return grid.transpose(2, 3).flatten(3).flatten(1, 2)


NORMALISATIONS: dict[str, type[nn.Module]] = {"mlp": Standardise, "norm-mlp": nn.LayerNorm}


def token_count(config: ConnectorConfig, feature_count: int) -> int:
    """How many visual tokens a picture makes."""
    side = math.isqrt(feature_count)
    if config.merge > 1 and (side**2 != feature_count or side % config.merge):
        raise UserError(
            f"connector.merge is {config.merge}, and the encoder's {feature_count} features are no square grid whose "
            f"sides it divides. Choose another vision.image_size, or merge: 1."
        )
    return feature_count // config.merge**2


def build_connector(config: ConnectorConfig, feature_size: int, embedding_size: int) -> MlpProjector:
    if config.kind not in NORMALISATIONS:
        raise UserError(f"There is no connector {config.kind!r}. Valid: {', '.join(NORMALISATIONS)}.")
    normalise = NORMALISATIONS[config.kind](feature_size)
    return MlpProjector(normalise, feature_size, config.hidden, embedding_size, config.merge)
