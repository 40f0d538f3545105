"""The picture as one vector, the mean of its visual tokens, put into the embedding of every word after it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlm.errors import UserError
from vlm.model.fusion.beside import Beside

MODES = ("add", "gate")
CLOSED = -3.0  # of a fresh gate before the sigmoid: a twentieth of the picture comes through


@dataclass(frozen=True)
class FusedSettings:
    """`add`: the vector is added to the word's. `gate`: a learned gate mixes both, channel by channel, by what both are."""

    mode: str = "add"

    @property
    def has_weights(self) -> bool:
        return self.mode == "gate"

    @property
    def told(self) -> str:
        return "as one vector in each word's embedding"

    def positions(self, visual_tokens: int) -> int:
        return 1

    def build(self, embedding_size: int, layers: int) -> "Fused":
        if self.mode not in MODES:
            raise UserError(f"There is no fusion.mode {self.mode!r}. Valid: {', '.join(MODES)}.")
        return Fused(nn.Linear(2 * embedding_size, embedding_size) if self.mode == "gate" else None)


class Fused(Beside):
    """`gate`: of word and picture [2 Dl] -> the picture's share of each channel, before a sigmoid. None to add."""

    def __init__(self, gate: nn.Linear | None) -> None:
        super().__init__()
        self.gate = gate
        if gate is not None:
            nn.init.zeros_(gate.weight)
            nn.init.constant_(gate.bias, CLOSED)

    def view(self, pictures: Tensor) -> Tensor:
        """[B, P, K, Dl] -> [B, P, Dl]"""
        return pictures.mean(2)

    def fuse(self, embeds: Tensor, seen: Tensor, view: Tensor | None) -> Tensor:
        if view is None:
            return embeds
        last = (seen - 1).clamp(min=0).unsqueeze(-1).expand(-1, -1, view.shape[-1])
        picture = view.gather(1, last).to(embeds.dtype)  # [B, T, Dl]
        return torch.where(seen.unsqueeze(-1) > 0, self._mixed(embeds, picture), embeds)

    def _mixed(self, words: Tensor, picture: Tensor) -> Tensor:
        if self.gate is None:
            return words + picture
        both = torch.cat([words, picture], dim=-1).to(self.gate.weight.dtype)
        share = self.gate(both).sigmoid().to(words.dtype)
        return words + share * (picture - words)
