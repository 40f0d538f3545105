"""Patch features [B, N, Dv] -> visual tokens [B, N, Dl] in the language model's embedding space."""

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

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.deviation


class MlpProjector(nn.Module):
    """Two linear layers with a GELU between, as LLaVA-1.5 (arXiv:2310.03744), behind `normalise`. [B, N, Dv] -> [B, N, Dl].

    `positions`: how many visual tokens have a learned place of their own, added to them; 0 where the order says enough.
    """

    def __init__(
        self,
        normalise: nn.Module,
        feature_size: int,
        hidden_size: int,
        embedding_size: int,
        positions: int = 0,
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            normalise,
            nn.Linear(feature_size, hidden_size),
            nn.GELU(),
            nn.Linear(hidden_size, embedding_size),
        )
        self.positions = nn.Parameter(torch.zeros(positions, embedding_size)) if positions else None
        self.noise = 0.0  # that training adds to the normalised features, in their deviations

    def standardise(self, patch_features: Tensor) -> None:
        """Take the statistics of training features [..., Dv], where these normalise."""
        if isinstance(self.layers[0], Standardise):
            mean, deviation = channel_statistics(patch_features)
            self.layers[0].mean.copy_(mean)
            self.layers[0].deviation.copy_(deviation)

    def forward(self, patch_features: Tensor) -> Tensor:
        normalised = self.layers[0](patch_features)
        if self.training and self.noise:
            normalised = normalised + self.noise * torch.randn_like(normalised)
        visual_tokens = self.layers[1:](normalised)
        return visual_tokens if self.positions is None else visual_tokens + self.positions


NORMALISATIONS: dict[str, type[nn.Module]] = {"mlp": Standardise, "norm-mlp": nn.LayerNorm}


def build_connector(
    config: ConnectorConfig, feature_count: int, feature_size: int, embedding_size: int
) -> MlpProjector:
    if config.kind not in NORMALISATIONS:
        raise UserError(f"There is no connector {config.kind!r}. Valid: {', '.join(NORMALISATIONS)}.")
    normalise = NORMALISATIONS[config.kind](feature_size)
    positions = feature_count if config.positions else 0
    return MlpProjector(normalise, feature_size, config.hidden, embedding_size, positions)
