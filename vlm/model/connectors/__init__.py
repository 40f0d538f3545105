"""Patch features [B, N, Dv] -> visual tokens [B, K, Dl] in the language model's embedding space: one file a connector.

A new one is a file with its settings and its module (`ConnectorSettings`, `Connector`), and a line in CONNECTORS.
"""

from vlm.config_reader import PartConfig, read_settings
from vlm.model.connectors.attention_pool import AttentionPoolSettings
from vlm.model.connectors.connector import Connector, ConnectorSettings
from vlm.model.connectors.linear import LinearSettings
from vlm.model.connectors.mlp import MlpSettings, NormMlpSettings
from vlm.model.connectors.pixel_shuffle import PixelShuffleSettings
from vlm.model.connectors.pooled_grid import PooledGridSettings
from vlm.model.connectors.q_former import QFormerSettings
from vlm.model.connectors.resampler import ResamplerSettings

CONNECTORS: dict[str, type[ConnectorSettings]] = {
    "linear": LinearSettings,
    "mlp": MlpSettings,
    "norm-mlp": NormMlpSettings,
    "attention-pool": AttentionPoolSettings,
    "q-former": QFormerSettings,
    "resampler": ResamplerSettings,
    "pixel-shuffle": PixelShuffleSettings,
    "pooled-grid": PooledGridSettings,
}


def connector_settings(config: PartConfig) -> ConnectorSettings:
    """Raises UserError for an unknown kind or key."""
    return read_settings(config, CONNECTORS, "connector")


def token_count(config: PartConfig, feature_count: int) -> int:
    """How many visual tokens a picture makes."""
    return connector_settings(config).tokens(feature_count)


def build_connector(config: PartConfig, feature_size: int, embedding_size: int) -> Connector:
    return connector_settings(config).build(feature_size, embedding_size)
