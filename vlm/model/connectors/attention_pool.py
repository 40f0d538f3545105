"""Learned queries look at the features once, and each becomes a visual token (Set Transformer's PMA, arXiv:1810.00825)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlm.errors import UserError
from vlm.model.connectors.connector import TwoLayerConnector, two_layers
from vlm.model.pooling import QueryPooling
from vlm.model.standardise import Standardise


@dataclass(frozen=True)
class AttentionPoolSettings:
    """With one head it is simple attention pooling: a query weighs whole features. With several, each head weighs for
    itself."""

    queries: int = 16
    heads: int = 8
    hidden: int = 1024

    def tokens(self, feature_count: int) -> int:
        return self.queries

    def build(self, feature_size: int, embedding_size: int) -> "AttentionPool":
        if min(self.queries, self.heads) < 1 or feature_size % self.heads:
            raise UserError(
                f"connector.heads must divide the encoder's {feature_size} channels and connector.queries be at least 1; "
                f"{self.heads} and {self.queries} were given."
            )
        return AttentionPool(feature_size, self.queries, self.heads, self.hidden, embedding_size)


class AttentionPool(TwoLayerConnector):
    """[B, N, Dv] -> [B, queries, Dl]"""

    def __init__(
        self, feature_size: int, queries: int, heads: int, hidden_size: int, embedding_size: int
    ) -> None:
        super().__init__(Standardise(feature_size))
        self.pooling = QueryPooling(feature_size, queries, heads)
        nn.init.normal_(self.pooling.queries)  # queries of zeros would all begin as the same mean
        self.count = queries
        self.layers = two_layers(feature_size, hidden_size, embedding_size)

    def connect(self, normalised: Tensor) -> Tensor:
        everywhere = torch.ones(normalised.shape[:2], dtype=torch.bool, device=normalised.device)
        return self.layers(self.pooling(normalised, everywhere).unflatten(1, (self.count, -1)))
