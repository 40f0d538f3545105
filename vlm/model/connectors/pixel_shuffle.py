"""Neighbouring cells become one visual token, their channels side by side, through one linear layer: as Idefics3 and
SmolVLM (arXiv:2408.12637), after InternVL (arXiv:2404.16821)."""

from dataclasses import dataclass

from torch import Tensor, nn

from vlm.model.connectors.connector import Connector
from vlm.model.connectors.grid import merge_cells, merged_count
from vlm.model.standardise import Standardise


@dataclass(frozen=True)
class PixelShuffleSettings:
    merge: int = 2  # merge x merge neighbouring cells make one visual token

    def tokens(self, feature_count: int) -> int:
        return merged_count(feature_count, self.merge)

    def build(self, feature_size: int, embedding_size: int) -> "PixelShuffle":
        return PixelShuffle(feature_size, embedding_size, self.merge)


class PixelShuffle(Connector):
    """[B, N, Dv] -> [B, N / merge^2, Dl]"""

    def __init__(self, feature_size: int, embedding_size: int, merge: int) -> None:
        super().__init__(Standardise(feature_size))
        self.merge = merge
        self.layer = nn.Linear(feature_size * merge**2, embedding_size)

    @property
    def way(self) -> list[nn.Linear]:
        return [self.layer]

    def connect(self, normalised: Tensor) -> Tensor:
        return self.layer(merge_cells(normalised, self.merge))
