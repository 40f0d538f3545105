"""BLIP-2's Querying Transformer (arXiv:2301.12597): learned queries look at each other, at the features in every second
block, and where there is text, at the text beside them.

What may look at what is a mask from outside, so that the same weights serve all of BLIP-2's first stage (contrast,
matching, captions) and InstructBLIP's instructions (arXiv:2305.06500).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlm.errors import UserError
from vlm.model.attention import MultiHeadAttention
from vlm.model.connectors.connector import NO_WORD, Connector, two_layers
from vlm.model.standardise import Standardise

TEXT = "text"  # stands in the names of the weights that only text goes through
EPSILON = 1e-12  # of BERT's layer norms, whose blocks these are


@dataclass(frozen=True)
class QFormerSettings:
    """`vocabulary`: how many word pieces the text beside the queries is written in; 0 for a Q-Former without text, which
    is what reads pictures once the first stage is over. `instructions`: the text encoder whose word pieces these are, where
    the queries are to look for what the question asks for."""

    queries: int = 32
    layers: int = 12
    width: int = 768
    heads: int = 12
    cross_every: int = 2  # in every such block, the first among them, the queries look at the features
    vocabulary: int = 0
    text_length: int = 128  # word pieces of a text at most
    instructions: str = ""

    def tokens(self, feature_count: int) -> int:
        return self.queries

    def build(self, feature_size: int, embedding_size: int) -> "QFormer":
        if min(self.queries, self.layers, self.heads, self.cross_every) < 1 or self.width % self.heads:
            raise UserError(
                "A Q-Former's queries, layers, heads and cross_every must be at least 1, and its heads divide its width; "
                f"{self} was given."
            )
        if self.instructions and not self.vocabulary:
            raise UserError(
                "A Q-Former with connector.instructions needs connector.vocabulary, the number of that text encoder's "
                "word pieces and one more: 30528 for all-mpnet-base-v2, as in training.heads, whose run it can go on from."
            )
        blocks = [
            Block(
                self.width,
                self.heads,
                feature_size if place % self.cross_every == 0 else None,
                bool(self.vocabulary),
            )
            for place in range(self.layers)
        ]
        text = TextEmbedding(self.vocabulary, self.text_length, self.width) if self.vocabulary else None
        made = QFormer(blocks, text, feature_size, self.width, self.queries, embedding_size)
        made.reads_questions = bool(self.instructions)
        return made


class QFormer(Connector):
    """[B, N, Dv] -> [B, queries, Dl]. W is the width inside."""

    def __init__(
        self,
        blocks: list["Block"],
        text: "TextEmbedding | None",
        feature_size: int,
        width: int,
        queries: int,
        embedding_size: int,
    ) -> None:
        super().__init__(Standardise(feature_size))
        self.queries = nn.Parameter(torch.zeros(queries, width))
        self.text = text
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.blocks = nn.ModuleList(blocks)
        self.outward = nn.Linear(width, embedding_size)
        self.apply(_start_like_bert)
        nn.init.normal_(self.queries, std=0.02)

    @property
    def way(self) -> list[nn.Linear]:
        return [self.blocks[0].cross.key, self.outward]

    def connect(self, normalised: Tensor) -> Tensor:
        return self.outward(self.read_normalised(normalised, None, None))

    def forward(self, patch_features: Tensor, question_ids: Tensor | None = None) -> Tensor:
        if question_ids is None:
            return super().forward(patch_features)
        queries = len(self.queries)
        present = functional.pad(question_ids != NO_WORD, (queries, 0), value=True)  # [B, S]
        mask = present.unsqueeze(1).expand(-1, present.shape[1], -1)
        return self.outward(self.read(patch_features, question_ids.clamp(min=0), mask)[:, :queries])

    def read(
        self, patch_features: Tensor | None, ids: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Features of pictures [B, N, Dv], texts [B, T], or both -> states [B, S, W], those of the queries first.

        S is queries + T, or T alone where there are no pictures. `mask` [B, S, S] is True where the position of a row may
        look at that of a column; by default everything may look at everything. Raises UserError for a text where the
        Q-Former has no vocabulary, or one that is too long."""
        normalised = None if patch_features is None else self.noisy(self.normalise(patch_features))
        return self.read_normalised(normalised, ids, mask)

    def read_normalised(self, normalised: Tensor | None, ids: Tensor | None, mask: Tensor | None) -> Tensor:
        parts = [] if normalised is None else [self.queries.expand(len(normalised), -1, -1)]
        if ids is not None:
            if self.text is None:
                raise UserError(
                    "This Q-Former reads no text. Set connector.vocabulary to its tokenizer's size."
                )
            parts.append(self.text(ids))
        states = self.norm(torch.cat(parts, dim=1))
        for block in self.blocks:
            states = block(states, normalised, 0 if normalised is None else len(self.queries), mask)
        return states


class TextEmbedding(nn.Module):
    """Word pieces with their places. [B, T] -> [B, T, W]"""

    def __init__(self, vocabulary: int, length: int, width: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)

    def forward(self, ids: Tensor) -> Tensor:
        if ids.shape[1] > self.places.num_embeddings:
            raise UserError(
                f"A text of {ids.shape[1]} word pieces is longer than connector.text_length, "
                f"{self.places.num_embeddings}."
            )
        return self.words(ids) + self.places.weight[: ids.shape[1]]


class Block(nn.Module):
    """Queries and text share the attention to each other; each side has two layers of its own. Norms stand behind the
    sums, as in BERT. `feature_size` is None in a block that does not look at the features."""

    def __init__(self, width: int, heads: int, feature_size: int | None, reads_text: bool) -> None:
        super().__init__()
        head_size = width // heads
        self.attention = MultiHeadAttention(width, width, heads, head_size, bias=True)
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.cross = self.cross_norm = None
        if feature_size is not None:
            self.cross = MultiHeadAttention(width, feature_size, heads, head_size, bias=True)
            self.cross_norm = nn.LayerNorm(width, eps=EPSILON)
        self.query_feed = FeedForward(width)
        self.text_feed = FeedForward(width) if reads_text else None

    def forward(self, states: Tensor, features: Tensor | None, queries: int, mask: Tensor | None) -> Tensor:
        """[B, S, W] with the queries first -> [B, S, W]"""
        states = self.norm(states + self.attention(states, states, mask))
        asking, text = states[:, :queries], states[:, queries:]
        if self.cross is not None and self.cross_norm is not None and features is not None:
            asking = self.cross_norm(asking + self.cross(asking, features))
        if self.text_feed is None:
            return self.query_feed(asking)
        return torch.cat([self.query_feed(asking), self.text_feed(text)], dim=1)


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = two_layers(width, 4 * width, width)
        self.norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, states: Tensor) -> Tensor:
        return self.norm(states + self.layers(states))


def _start_like_bert(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


def without_text(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a Q-Former after its first stage -> those of one that reads pictures alone."""
    return {name: tensor for name, tensor in state.items() if TEXT not in name}
