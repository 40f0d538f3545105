"""One linear layer from features to visual tokens, as LLaVA (arXiv:2304.08485)."""

from dataclasses import dataclass

from torch import Tensor, nn

from vlm.model.connectors.connector import Connector
from vlm.model.standardise import Standardise


@dataclass(frozen=True)
class LinearSettings:
    def tokens(self, feature_count: int) -> int:
        return feature_count

    def build(self, feature_size: int, embedding_size: int) -> "LinearProjector":
        return LinearProjector(feature_size, embedding_size)


class LinearProjector(Connector):
    """[B, N, Dv] -> [B, N, Dl]"""

    def __init__(self, feature_size: int, embedding_size: int) -> None:
        super().__init__(Standardise(feature_size))
        self.layer = nn.Linear(feature_size, embedding_size)

    @property
    def way(self) -> list[nn.Linear]:
        return [self.layer]

    def connect(self, normalised: Tensor) -> Tensor:
        return self.layer(normalised)
