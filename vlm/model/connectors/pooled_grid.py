"""The grid of features averaged down to a smaller one, then two linear layers: few visual tokens, and each still knows
where it is (as in Honeybee's comparison, arXiv:2312.06742)."""

from dataclasses import dataclass

from torch import Tensor

from vlm.errors import UserError
from vlm.model.connectors.connector import TwoLayerConnector, two_layers
from vlm.model.connectors.grid import grid_side, pool_cells
from vlm.model.standardise import Standardise


@dataclass(frozen=True)
class PooledGridSettings:
    side: int = 4  # of the smaller grid, in cells
    hidden: int = 1024

    def tokens(self, feature_count: int) -> int:
        side = grid_side(feature_count)
        if not 1 <= self.side <= side:
            raise UserError(
                f"connector.side is {self.side}, and the encoder's grid is {side} x {side}. "
                f"Choose a side from 1 to {side}."
            )
        return self.side**2

    def build(self, feature_size: int, embedding_size: int) -> "PooledGrid":
        return PooledGrid(feature_size, self.hidden, embedding_size, self.side)


class PooledGrid(TwoLayerConnector):
    """[B, N, Dv] -> [B, side^2, Dl]"""

    def __init__(self, feature_size: int, hidden_size: int, embedding_size: int, side: int) -> None:
        super().__init__(Standardise(feature_size))
        self.side = side
        self.layers = two_layers(feature_size, hidden_size, embedding_size)

    def connect(self, normalised: Tensor) -> Tensor:
        return self.layers(pool_cells(normalised, self.side))
