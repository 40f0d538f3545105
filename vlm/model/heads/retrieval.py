"""Pictures and texts of one batch find each other (image-text contrast of BLIP-2, arXiv:2301.12597)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlm.model.aligner import LARGEST_SCALE, SCALE
from vlm.model.connectors.q_former import QFormer
from vlm.model.heads.task import TaskBatch, unimodal_mask

SIZE = 256  # of the space that both are put in
SMOOTHING = 0.1  # of the labels: some other text of the batch may fit as well


class Retrieval(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.picture, self.text = nn.Linear(width, SIZE), nn.Linear(width, SIZE)
        self.log_scale = nn.Parameter(torch.tensor(math.log(SCALE)))

    def embed(self, trunk: QFormer, batch: TaskBatch) -> tuple[Tensor, Tensor]:
        """-> the queries of each picture [B, Q, E] and the first word piece of each text [B, E], of unit length. Neither
        side sees the other."""
        queries = len(trunk.queries)
        states = trunk.read(batch.patch_features, batch.ids, unimodal_mask(queries, batch.present))
        pictures, texts = self.picture(states[:, :queries]), self.text(states[:, queries])
        return functional.normalize(pictures, dim=-1), functional.normalize(texts, dim=-1)

    def loss(self, trunk: QFormer, batch: TaskBatch) -> Tensor:
        scores = similarities(*self.embed(trunk, batch)) * self.log_scale.exp().clamp(max=LARGEST_SCALE)
        right = torch.arange(len(scores), device=scores.device)
        ways = [
            functional.cross_entropy(each, right, label_smoothing=SMOOTHING) for each in (scores, scores.T)
        ]
        return (ways[0] + ways[1]) / 2


def similarities(pictures: Tensor, texts: Tensor) -> Tensor:
    """[P, Q, E], [T, E] -> [P, T]: that of the query which is most like the text."""
    return torch.einsum("pqe,te->pqt", pictures, texts).amax(1)
