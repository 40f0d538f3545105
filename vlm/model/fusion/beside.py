"""Fusions that leave the prompt to the text: pictures are seen from beside it, and each position sees the last picture that
stands before it, as in Flamingo (arXiv:2204.14198)."""

from typing import NamedTuple

import torch
from torch import Tensor

from vlm.model.fusion.fusion import Arranged, Fusion
from vlm.model.prompts import IGNORE, Batch


class Marked(NamedTuple):
    """A batch without the marks of its pictures: each row's other positions, in order, and padding behind them."""

    batch: Batch
    order: Tensor  # [B, T] the position that each came from
    seen: Tensor  # [B, T] how many of its row's pictures stand before each


class Beside(Fusion):
    beside = True

    def arrange(self, embeds: Tensor, batch: Batch, visual_tokens: Tensor | None) -> Arranged:
        marked = without_marks(Batch(*(each.to(embeds.device) for each in batch)))
        embeds = embeds.gather(1, marked.order.unsqueeze(-1).expand_as(embeds))
        view = None
        if visual_tokens is not None:
            marks = batch.visual_mask.to(embeds.device)
            view = self.view(by_row(visual_tokens.to(embeds.device), marks))
        fused = self.fuse(embeds, marked.seen, view)
        return Arranged(fused, marked.batch.attention_mask, marked.batch.labels)


def without_marks(batch: Batch) -> Marked:
    """Move the mark of each picture, one position, behind the text and its padding, where it is padding itself."""
    marks = batch.visual_mask
    order = marks.int().argsort(dim=1, stable=True)
    ids, mask, labels, before = (
        each.gather(1, order)
        for each in (
            batch.input_ids,
            batch.attention_mask.masked_fill(marks, 0),
            batch.labels.masked_fill(marks, IGNORE),
            marks.cumsum(1),
        )
    )
    return Marked(Batch(ids, torch.zeros_like(marks), mask, labels), order, before)


def by_row(visual_tokens: Tensor, marks: Tensor) -> Tensor:
    """The visual tokens [M, K, Dl] of all pictures in reading order, and their marks [B, T] -> [B, P, K, Dl], where P is
    the number of pictures of the row that has most; behind those of the others stand zeros."""
    rows, _ = marks.nonzero(as_tuple=True)
    places = marks.cumsum(1)[marks] - 1
    most = int(marks.sum(1).max())
    pictures = visual_tokens.new_zeros(len(marks), most, *visual_tokens.shape[1:])
    pictures[rows, places] = visual_tokens
    return pictures
