"""How visual tokens reach the language model: one file a fusion.

A new one is a file with its settings and its module (`FusionSettings`, `Fusion`), and a line in FUSIONS.
"""

from typing import Any

from vlm.config_reader import PartConfig, read_settings
from vlm.model.fusion.cross_attention import CrossAttentionSettings
from vlm.model.fusion.fused import FusedSettings
from vlm.model.fusion.fusion import Fusion, FusionSettings
from vlm.model.fusion.prefix import PrefixSettings

FUSIONS: dict[str, type[FusionSettings]] = {
    "prefix": PrefixSettings,
    "cross-attention": CrossAttentionSettings,
    "fused": FusedSettings,
}


def fusion_settings(config: PartConfig) -> FusionSettings:
    """Raises UserError for an unknown kind or key."""
    return read_settings(config, FUSIONS, "fusion")


def build_fusion(config: PartConfig, causal: Any) -> Fusion:
    """A fresh fusion, in its place between the layers of Transformers' language model `causal`."""
    decoder = causal.get_decoder()
    layers = decoder.layers if hasattr(decoder, "layers") else decoder.h  # of GPT-2
    fusion = fusion_settings(config).build(causal.config.hidden_size, len(layers))
    fusion.attach(layers)
    return fusion
