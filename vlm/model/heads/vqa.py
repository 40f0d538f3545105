"""A question about a picture -> one of the answers of a vocabulary, told from both fused (VQA as classification,
arXiv:1505.00468; soft targets as in arXiv:1708.02711)."""

from torch import Tensor, nn

from vlm.model.connectors.connector import two_layers
from vlm.model.connectors.q_former import QFormer
from vlm.model.heads.task import TaskBatch, bidirectional_mask, query_states


class Vqa(nn.Module):
    def __init__(self, width: int, answers: int) -> None:
        super().__init__()
        self.layers = two_layers(width, 2 * width, answers)

    def scores(self, trunk: QFormer, batch: TaskBatch) -> Tensor:
        """[B, A]"""
        mask = bidirectional_mask(len(trunk.queries), batch.present)
        return self.layers(query_states(trunk, batch, mask).mean(1))

    def loss(self, trunk: QFormer, batch: TaskBatch) -> Tensor:
        """Cross-entropy with the shares of people that gave each answer."""
        assert batch.targets is not None, "questions come with their answers"
        return -(batch.targets * self.scores(trunk, batch).float().log_softmax(-1)).sum(-1).mean()
