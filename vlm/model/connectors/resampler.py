"""Flamingo's Perceiver Resampler (arXiv:2204.14198): learned latents look at the features of all frames and at each other,
block after block, and become the visual tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlm.errors import UserError
from vlm.model.attention import MultiHeadAttention
from vlm.model.connectors.connector import Connector
from vlm.model.standardise import Standardise


@dataclass(frozen=True)
class ResamplerSettings:
    """`frames`: how many equal parts the features come in, such as a picture's tiles or the frames of a video; each is
    given a time embedding of its own."""

    latents: int = 32
    depth: int = 2
    width: int = 512
    heads: int = 8
    head_size: int = 64
    frames: int = 1

    def tokens(self, feature_count: int) -> int:
        if self.frames < 1 or feature_count % self.frames:
            raise UserError(
                f"connector.frames must divide the encoder's {feature_count} features, and is {self.frames}."
            )
        return self.latents

    def build(self, feature_size: int, embedding_size: int) -> "Resampler":
        if min(self.latents, self.depth, self.width, self.heads, self.head_size) < 1:
            raise UserError(
                "A resampler's latents, depth, width, heads and head_size must each be at least 1."
            )
        perceiver = Perceiver(self.width, self.depth, self.heads, self.head_size, self.latents)
        return Resampler(perceiver, feature_size, self.width, embedding_size, self.frames)


class Resampler(Connector):
    """[B, N, Dv] -> [B, latents, Dl]"""

    def __init__(
        self, perceiver: "Perceiver", feature_size: int, width: int, embedding_size: int, frames: int
    ) -> None:
        super().__init__(Standardise(feature_size))
        self.inward = nn.Linear(feature_size, width)
        self.time = nn.Parameter(torch.randn(frames, 1, width))
        self.perceiver = perceiver
        self.outward = nn.Linear(width, embedding_size)

    @property
    def way(self) -> list[nn.Linear]:
        return [self.inward, self.outward]

    def connect(self, normalised: Tensor) -> Tensor:
        frames = (
            self.inward(normalised).unflatten(1, (len(self.time), -1)) + self.time
        )  # [B, frames, N / frames, W]
        return self.outward(self.perceiver(frames.flatten(1, 2)))


class Perceiver(nn.Module):
    """Features [B, N, W] -> latents [B, latents, W]"""

    def __init__(self, width: int, depth: int, heads: int, head_size: int, latents: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.blocks = nn.ModuleList(PerceiverBlock(width, heads, head_size) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Tensor) -> Tensor:
        latents = self.latents.expand(len(features), -1, -1)
        for block in self.blocks:
            latents = block(latents, features)
        return self.norm(latents)


class PerceiverBlock(nn.Module):
    """Latents look at the features and at themselves, then each goes through two layers."""

    def __init__(self, width: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.feature_norm, self.latent_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, width, heads, head_size, bias=False)
        self.feed = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width, bias=False),
            nn.ReLU(),  # squared in Flamingo's pseudocode, plain in the models that came after it (Idefics)
            nn.Linear(4 * width, width, bias=False),
        )

    def forward(self, latents: Tensor, features: Tensor) -> Tensor:
        normed = self.latent_norm(latents)
        source = torch.cat([self.feature_norm(features), normed], dim=1)
        latents = latents + self.attention(normed, source)
        return latents + self.feed(latents)
