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


class MlpProjector(nn.Module):
    """Two linear layers with a GELU between, as LLaVA-1.5 (arXiv:2310.03744). [B, N, Dv] -> [B, N, Dl].

    The features are standardised first with fixed statistics of the training pictures: what all pictures share is
    most of a convolutional feature, and would have to be unlearned before anything is told apart."""

    def __init__(self, feature_size: int, hidden_size: int, embedding_size: int) -> None:
        super().__init__()
        self.register_buffer("feature_mean", torch.zeros(feature_size))
        self.register_buffer("feature_deviation", torch.ones(feature_size))
        self.layers = nn.Sequential(
            nn.Linear(feature_size, hidden_size), nn.GELU(), nn.Linear(hidden_size, embedding_size)
        )

    def standardise(self, patch_features: Tensor) -> None:
        """Take the statistics of training features [..., Dv]."""
        mean, deviation = channel_statistics(patch_features)
        self.feature_mean.copy_(mean)
        self.feature_deviation.copy_(deviation)

    def forward(self, patch_features: Tensor) -> Tensor:
        return self.layers((patch_features - self.feature_mean) / self.feature_deviation)


class NormMlpProjector(nn.Module):
    """The same two layers behind a LayerNorm of each feature, with scales to learn in place of fixed statistics."""

    def __init__(self, feature_size: int, hidden_size: int, embedding_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(feature_size),
            nn.Linear(feature_size, hidden_size),
            nn.GELU(),
            nn.Linear(hidden_size, embedding_size),
        )

    def standardise(self, patch_features: Tensor) -> None:
        """Nothing to take from the training features: each is normalised by itself."""

    def forward(self, patch_features: Tensor) -> Tensor:
        return self.layers(patch_features)


Connector = MlpProjector | NormMlpProjector
CONNECTORS: dict[str, type[MlpProjector] | type[NormMlpProjector]] = {
    "mlp": MlpProjector,
    "norm-mlp": NormMlpProjector,
}


def build_connector(config: ConnectorConfig, feature_size: int, embedding_size: int) -> Connector:
    if config.kind not in CONNECTORS:
        raise UserError(f"There is no connector {config.kind!r}. Valid: {', '.join(CONNECTORS)}.")
    return CONNECTORS[config.kind](feature_size, config.hidden, embedding_size)
