"""Visual tokens stand in the prompt like words, each at a position of its own, as in LLaVA (arXiv:2304.08485)."""

from dataclasses import dataclass

from torch import Tensor

from vlm.model.fusion.fusion import Arranged, Fusion
from vlm.model.prompts import Batch


@dataclass(frozen=True)
class PrefixSettings:
    has_weights = False
    told = "in the prompt"

    def positions(self, visual_tokens: int) -> int:
        return visual_tokens

    def build(self, embedding_size: int, layers: int) -> "Prefix":
        return Prefix()


class Prefix(Fusion):
    def arrange(self, embeds: Tensor, batch: Batch, visual_tokens: Tensor | None) -> Arranged:
        if visual_tokens is not None:
            places = batch.visual_mask.to(embeds.device).unsqueeze(-1)
            embeds = embeds.masked_scatter(places, visual_tokens.to(embeds.dtype))
        return Arranged(embeds, batch.attention_mask, batch.labels)

    def view(self, pictures: Tensor) -> None:
        """They are in the prompt already."""

    def fuse(self, embeds: Tensor, seen: Tensor, view: None) -> Tensor:
        return embeds
