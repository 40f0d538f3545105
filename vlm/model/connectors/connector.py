"""A connector: patch features [B, N, Dv] -> visual tokens [B, K, Dl] in the language model's embedding space."""

from typing import Protocol

import torch
from torch import Tensor, nn

from vlm.model.standardise import Standardise

NO_WORD = -1


class Connector(nn.Module):
    """Each kind has its own `connect`; before it features are normalised and, in training, given noise."""

    reads_questions = False  # whether what is asked about a picture bears on its visual tokens

    def __init__(self, normalise: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        self.noise = 0.0  # that training adds to the normalised features, in their deviations

    @property
    def way(self) -> list[nn.Linear]:
        """The linear layers that lead from the features to the visual tokens; the last one gives these."""
        raise NotImplementedError

    @property
    def widths(self) -> list[int]:
        """Channels of a feature, then of what each layer on its way makes of it."""
        return [self.way[0].in_features, *(layer.out_features for layer in self.way)]

    def connect(self, normalised: Tensor) -> Tensor:
        """Normalised features [B, N, Dv] -> visual tokens [B, K, Dl]"""
        raise NotImplementedError

    def forward(self, patch_features: Tensor, question_ids: Tensor | None = None) -> Tensor:
        """`question_ids` [B, T] are given to one that `reads_questions`: word pieces of what is asked about each picture,
        NO_WORD behind the last."""
        return self.connect(self.noisy(self.normalise(patch_features)))

    def noisy(self, normalised: Tensor) -> Tensor:
        if self.training and self.noise:
            return normalised + self.noise * torch.randn_like(normalised)
        return normalised

    def standardise(self, patch_features: Tensor) -> None:
        """Take the statistics of training features [..., Dv], where these normalise."""
        if isinstance(self.normalise, Standardise):
            self.normalise.take(patch_features)

    @torch.no_grad()
    def scale_to(self, size: float, patch_features: Tensor) -> None:
        """Make fresh visual tokens as large as `size`, the root mean square of the text's embeddings: larger ones would
        drown the text until training has shrunk them."""
        last = self.way[-1]
        factor = size / self(patch_features.to(last.weight)).square().mean().sqrt()
        last.weight.mul_(factor)
        last.bias.mul_(factor)


class TwoLayerConnector(Connector):
    """One whose `layers`, made by `two_layers`, give the visual tokens."""

    layers: nn.Sequential

    @property
    def way(self) -> list[nn.Linear]:
        return [self.layers[0], self.layers[-1]]


class ConnectorSettings(Protocol):
    """A connector's own dataclass: the keys that its `connector:` mapping may have beside `kind`, with their defaults."""

    def tokens(self, feature_count: int) -> int:
        """How many visual tokens a picture of `feature_count` features makes. Raises UserError where it does not fit."""
        ...

    def build(self, feature_size: int, embedding_size: int) -> Connector:
        """A fresh connector. Raises UserError where the settings contradict each other or `feature_size`."""
        ...


def two_layers(inward: int, hidden: int, outward: int) -> nn.Sequential:
    """Two linear layers with a GELU between."""
    return nn.Sequential(nn.Linear(inward, hidden), nn.GELU(), nn.Linear(hidden, outward))
