"""One linear layer from features to visual tokens, as LLaVA (arXiv:2304.08485): each cell is one."""

from dataclasses import dataclass

from vlm.model.connectors.pixel_shuffle import PixelShuffle


@dataclass(frozen=True)
class LinearSettings:
    def tokens(self, feature_count: int) -> int:
        return feature_count

    def build(self, feature_size: int, embedding_size: int) -> PixelShuffle:
        return PixelShuffle(feature_size, embedding_size, merge=1)
