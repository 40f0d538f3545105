"""Pictures -> what is seen in them: visual tokens and tags. The part of the model that every engine is served by."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from vlm.config import ModelConfig
from vlm.model.connectors import build_connector, token_count
from vlm.model.encoders import build_encoder
from vlm.model.fusion import fusion_settings
from vlm.model.tags import Tagger


class Sight(NamedTuple):
    """What is seen in one picture: visual tokens [K, Dl], and tags for the prompt."""

    visual_tokens: Tensor
    tags: str = ""


class Eyes(nn.Module):
    """Vision encoder and connector, with a tagger beside them if the encoder has classes. `tokens_per_picture` is how many
    positions of a prompt mark a picture."""

    def __init__(
        self, vision: Any, connector: nn.Module, tokens_per_picture: int, tagger: Tagger | None
    ) -> None:
        super().__init__()
        self.vision, self.connector, self.tagger = vision, connector, tagger
        self.tokens_per_picture = tokens_per_picture

    @torch.inference_mode()
    def see(self, images: Sequence[Image.Image]) -> list[Sight]:
        """RGB pictures of any size."""
        if not images:
            return []
        features = self.vision.see(images)
        weight = next(self.connector.parameters())
        visual_tokens = self.connector(features.to(weight.device, weight.dtype))
        return [Sight(*pair) for pair in zip(visual_tokens, self.name(features), strict=True)]

    def name(self, patch_features: Tensor) -> list[str]:
        """Patch features [B, N, Dv] -> the tags of each picture, "" without a tagger."""
        return (
            self.tagger.tags(self.tagger.pool(patch_features)) if self.tagger else [""] * len(patch_features)
        )


def build_eyes(config: ModelConfig, embedding_size: int, device: str = "cpu") -> Eyes:
    """The encoder with its weights, and a fresh connector until an adapter is loaded."""
    vision = build_encoder(config.vision, device)
    connector = build_connector(config.connector, vision.feature_size, embedding_size).to(device)
    tagger = Tagger(vision.classifier, vision.classes, config.vision.tags) if config.vision.tags else None
    visual_tokens = token_count(config.connector, vision.feature_count)
    return Eyes(vision, connector, fusion_settings(config.fusion).positions(visual_tokens), tagger)
