"""Gated cross-attention blocks between the layers of a frozen language model, as in Flamingo (arXiv:2204.14198). The blocks
are those of Idefics (arXiv:2306.16527)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlm.errors import UserError
from vlm.model.attention import MultiHeadAttention
from vlm.model.fusion.beside import Beside


@dataclass(frozen=True)
class CrossAttentionSettings:
    every: int = 4  # layers of the language model: before the first of them stands a block
    heads: int = 8
    head_size: int = 64
    feed: float = (
        1.0  # width of a block's own two layers, as a multiple of the language model's; 4 in Flamingo
    )

    has_weights = True

    @property
    def told(self) -> str:
        return f"by gated blocks between the layers (every: {self.every})"

    def positions(self, visual_tokens: int) -> int:
        return 1

    def build(self, embedding_size: int, layers: int) -> "CrossAttention":
        feed = int(self.feed * embedding_size)
        if min(self.heads, self.head_size, feed) < 1 or not 1 <= self.every <= layers:
            raise UserError(
                f"fusion.every must be from 1 to the language model's {layers} layers, and heads, head_size and feed more "
                f"than nothing; {self} was given."
            )
        count = -(-layers // self.every)
        blocks = [GatedBlock(embedding_size, self.heads, self.head_size, feed) for _ in range(count)]
        return CrossAttention(blocks, self.every)


class View(NamedTuple):
    """What the blocks see of the pictures: keys and values of each block [B, heads, P * K, head_size]."""

    remembered: list[tuple[Tensor, Tensor]]
    pictures: int
    visual_tokens: int


class CrossAttention(Beside):
    """The language model is left as it is: its layers call the blocks by hooks, and the blocks' weights are kept here."""

    def __init__(self, blocks: list["GatedBlock"], every: int) -> None:
        super().__init__()
        self.blocks, self.every = nn.ModuleList(blocks), every
        self._now: tuple[View, Tensor] | None = (
            None  # what is seen, and by which positions of the piece being read
        )

    def attach(self, layers: nn.ModuleList) -> None:
        for place, block in enumerate(self.blocks):
            layers[place * self.every].register_forward_pre_hook(self._hook(place, block))

    def _hook(self, place: int, block: nn.Module) -> Any:
        def look_first(layer: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if self._now is None:
                return None
            view, seen = self._now
            states, *others = arguments
            mask = may_look(seen, view.pictures, view.visual_tokens)
            return block(states, *view.remembered[place], mask, seen > 0), *others

        return look_first

    def view(self, pictures: Tensor) -> View:
        _, count, visual_tokens, _ = pictures.shape
        source = pictures.flatten(1, 2).to(self.blocks[0].attention.key.weight.dtype)
        return View([block.attention.remember(source) for block in self.blocks], count, visual_tokens)

    def fuse(self, embeds: Tensor, seen: Tensor, view: View | None) -> Tensor:
        self._now = None if view is None else (view, seen)
        return embeds

    def rest(self) -> None:
        self._now = None


def may_look(seen: Tensor, pictures: int, visual_tokens: int) -> Tensor:
    """How many pictures stand before each position [B, T] -> at which visual tokens it may look [B, T, pictures *
    visual_tokens]: those of the last one. A position without any may look at all, so that the attention is defined; what it
    sees there is not taken."""
    last = seen.unsqueeze(-1) - 1 == torch.arange(pictures, device=seen.device)
    return (last | (seen == 0).unsqueeze(-1)).repeat_interleave(visual_tokens, dim=-1)


class GatedBlock(nn.Module):
    """Each half of the block is added through a gate, tanh of a number that starts at zero: a fresh block changes nothing.
    A position that sees no picture stays as it is."""

    def __init__(self, width: int, heads: int, head_size: int, feed: int) -> None:
        super().__init__()
        self.norm, self.feed_norm = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.attention = MultiHeadAttention(width, width, heads, head_size, bias=False)
        self.gate, self.up = nn.Linear(width, feed, bias=False), nn.Linear(width, feed, bias=False)
        self.down = nn.Linear(feed, width, bias=False)
        self.attention_gate, self.feed_gate = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, states: Tensor, key: Tensor, value: Tensor, mask: Tensor, sees: Tensor) -> Tensor:
        """[B, T, Dl] -> [B, T, Dl]. `mask` as `may_look` has it; `sees` [B, T] is True where there is a picture to see."""
        sum_of = states.to(
            self.norm.weight.dtype
        )  # float32 in training, where the language model's is bfloat16
        sees = sees.unsqueeze(-1)
        looked = self.attention.look(self.norm(sum_of), key, value, mask)
        sum_of = sum_of + sees * (self.attention_gate.tanh() * looked)
        normed = self.feed_norm(sum_of)
        fed = self.down(functional.silu(self.gate(normed)) * self.up(normed))
        return (sum_of + sees * (self.feed_gate.tanh() * fed)).to(states.dtype)
