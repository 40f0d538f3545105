"""What a task learns from: pictures, and a text beside each."""

from typing import NamedTuple

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
