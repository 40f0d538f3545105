"""Two linear layers with a GELU between, as LLaVA-1.5 (arXiv:2310.03744)."""

from dataclasses import dataclass

from torch import Tensor, nn

from vlm.model.connectors.connector import TwoLayerConnector, two_layers
from vlm.model.connectors.grid import merge_cells, merged_count
from vlm.model.standardise import Standardise


@dataclass(frozen=True)
class MlpSettings:
    hidden: int = 1024
    merge: int = 1  # merge x merge neighbouring cells make one visual token

    def tokens(self, feature_count: int) -> int:
        return merged_count(feature_count, self.merge)

    def build(self, feature_size: int, embedding_size: int) -> "MlpProjector":
        return MlpProjector(Standardise(feature_size), feature_size, self.hidden, embedding_size, self.merge)


@dataclass(frozen=True)
class NormMlpSettings(MlpSettings):
    """The same behind a LayerNorm, which learns, in place of fixed statistics."""

    def build(self, feature_size: int, embedding_size: int) -> "MlpProjector":
        return MlpProjector(nn.LayerNorm(feature_size), feature_size, self.hidden, embedding_size, self.merge)


class MlpProjector(TwoLayerConnector):
    """[B, N, Dv] -> [B, K, Dl]

    `merge` x `merge` neighbouring cells become one visual token, their channels side by side: nothing is averaged
    away, and K = N / merge^2.
    """

    def __init__(
        self,
        normalise: nn.Module,
        feature_size: int,
        hidden_size: int,
        embedding_size: int,
        merge: int = 1,
    ) -> None:
        super().__init__(normalise)
        self.merge = merge
        self.layers = two_layers(feature_size * merge**2, hidden_size, embedding_size)

    def connect(self, normalised: Tensor) -> Tensor:
        return self.layers(merge_cells(normalised, self.merge))
