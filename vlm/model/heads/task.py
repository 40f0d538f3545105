"""What the tasks share: pictures with a text beside each, and what may look at what in the Q-Former that reads both.

The three masks are those of BLIP-2's first stage (arXiv:2301.12597, figure 2). Positions are the queries and, behind them,
the word pieces of a text: S = queries + T. Each mask is [B, S, S], True where the position of a row may look at that of a
column. `present` [B, T] says which word pieces are there; nothing looks at padding.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from vlm.model.connectors.q_former import QFormer


class TaskBatch(NamedTuple):
    """Pictures [B, N, Dv]; of each a text in word pieces, `ids` and `present` [B, T]; for questions also the share of
    people that gave each answer of a vocabulary [B, A]."""

    patch_features: Tensor
    ids: Tensor
    present: Tensor
    targets: Tensor | None = None


def query_states(trunk: QFormer, batch: TaskBatch, mask: Tensor) -> Tensor:
    """What the queries know of the pictures and, so far as the mask lets them, of the texts. [B, queries, W]"""
    return trunk.read(batch.patch_features, batch.ids, mask)[:, : len(trunk.queries)]


def unimodal_mask(queries: int, present: Tensor) -> Tensor:
    """Queries look at queries and words at words: neither knows of the other, so that they can be compared (contrast)."""
    return _mask(queries, present, see_text=False, see_queries=False)


def bidirectional_mask(queries: int, present: Tensor) -> Tensor:
    """All look at all: whether the two belong together is told from both (matching)."""
    return _mask(queries, present, see_text=True, see_queries=True)


def causal_mask(queries: int, present: Tensor) -> Tensor:
    """Queries look at queries; a word looks at the queries, itself and the words before it (captions): what the words say
    of the picture has come through the queries."""
    mask = _mask(queries, present, see_text=False, see_queries=True)
    words = present.shape[1]
    mask[:, queries:, queries:] &= torch.ones(words, words, dtype=torch.bool, device=present.device).tril()
    return mask


def _mask(queries: int, present: Tensor, see_text: bool, see_queries: bool) -> Tensor:
    """`see_text`: whether queries look at words; `see_queries`: whether words look at queries."""
    batch, words = present.shape
    mask = present.new_ones(batch, queries + words, queries + words, dtype=torch.bool)
    mask[:, :queries, queries:] = see_text
    mask[:, queries:, :queries] = see_queries
    mask[:, :, queries:] &= present[:, None]
    return mask
