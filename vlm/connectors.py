"""Patch features [B, N, Dv] -> visual tokens [B, N, Dl] in the language model's embedding space."""

from torch import Tensor, nn

from vlm.config import ConnectorConfig
from vlm.errors import UserError


class MlpProjector(nn.Module):
    """Two linear layers with a GELU between, as LLaVA-1.5 (arXiv:2310.03744). [B, N, Dv] -> [B, N, Dl]."""

    def __init__(self, feature_size: int, hidden_size: int, embedding_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(feature_size, hidden_size), nn.GELU(), nn.Linear(hidden_size, embedding_size)
        )

    def forward(self, patch_features: Tensor) -> Tensor:
        return self.layers(patch_features)


CONNECTORS = {"mlp": MlpProjector}


def build_connector(config: ConnectorConfig, feature_size: int, embedding_size: int) -> MlpProjector:
    if config.kind not in CONNECTORS:
        raise UserError(f"There is no connector {config.kind!r}. Valid: {', '.join(CONNECTORS)}.")
    return CONNECTORS[config.kind](feature_size, config.hidden, embedding_size)
