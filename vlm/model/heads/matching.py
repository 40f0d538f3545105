"""Whether a text belongs to a picture, told from both together, against the likeliest wrong one of the batch (image-text
matching with hard negatives: ALBEF, arXiv:2107.07651, and BLIP-2, arXiv:2301.12597)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlm.model.connectors.q_former import QFormer
from vlm.model.heads.retrieval import similarities
from vlm.model.heads.task import TaskBatch, bidirectional_mask, query_states


class Matching(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 2)  # not, belongs

    def scores(self, trunk: QFormer, batch: TaskBatch) -> Tensor:
        """[B, 2]: the mean over the queries"""
        mask = bidirectional_mask(len(trunk.queries), batch.present)
        return self.layer(query_states(trunk, batch, mask)).mean(1)

    def loss(self, trunk: QFormer, batch: TaskBatch, likeness: Tensor | None = None) -> Tensor:
        """Each picture with its text, with a wrong text, and each text with a wrong picture. `likeness` [B, B] of pictures
        to texts says which wrong ones are hard; without it all are drawn alike."""
        if likeness is None:
            likeness = batch.patch_features.new_zeros(len(batch.ids), len(batch.ids))
        texts, pictures = hard_negatives(likeness), hard_negatives(likeness.T)
        tried = TaskBatch(
            torch.cat([batch.patch_features, batch.patch_features, batch.patch_features[pictures]]),
            torch.cat([batch.ids, batch.ids[texts], batch.ids]),
            torch.cat([batch.present, batch.present[texts], batch.present]),
        )
        belongs = torch.arange(len(tried.ids), device=tried.ids.device) < len(batch.ids)
        return functional.cross_entropy(self.scores(trunk, tried), belongs.long())


@torch.no_grad()
def hard_negatives(likeness: Tensor) -> Tensor:
    """[B, B] -> for each row another column than its own, the likelier the more alike. [B]"""
    own = torch.eye(len(likeness), dtype=torch.bool, device=likeness.device)
    return torch.multinomial(likeness.float().masked_fill(own, float("-inf")).softmax(1), 1)[:, 0]


@torch.no_grad()
def likeness_of(trunk: QFormer, retrieval: nn.Module, batch: TaskBatch) -> Tensor:
    """How alike retrieval finds the pictures and texts of a batch, scaled as it learned it. [B, B]"""
    return similarities(*retrieval.embed(trunk, batch)) * retrieval.log_scale.exp()
