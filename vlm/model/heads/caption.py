"""A text written word by word by the trunk itself (image-grounded text generation of BLIP-2, arXiv:2301.12597)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlm.model.connectors.q_former import QFormer
from vlm.model.heads.task import TaskBatch, causal_mask


class Caption(nn.Module):
    """The last word piece, `vocabulary` - 1, which the tokenizer never gives, stands first and says "write"."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.start = vocabulary - 1
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def scores(self, trunk: QFormer, batch: TaskBatch) -> Tensor:
        """Scores of the word piece after each [B, T, V], by the trunk's own word embeddings."""
        queries = len(trunk.queries)
        states = trunk.read(batch.patch_features, batch.ids, causal_mask(queries, batch.present))
        return self.transform(states[:, queries:]) @ trunk.text.words.weight.T + self.bias  # type: ignore[union-attr]

    def loss(self, trunk: QFormer, batch: TaskBatch) -> Tensor:
        ids = batch.ids.clone()
        ids[:, 0] = self.start
        learned = batch.present[:, 1:]
        scores = self.scores(trunk, batch._replace(ids=ids))[:, :-1][learned]
        return functional.cross_entropy(scores.float(), batch.ids[:, 1:][learned])

    @torch.inference_mode()
    def write(self, trunk: QFormer, patch_features: Tensor, end: int, longest: int = 24) -> list[list[int]]:
        """Pictures [B, N, Dv] -> the likeliest word pieces of each, one after the other, without the end."""
        ids = torch.full((len(patch_features), 1), self.start, device=patch_features.device)
        for _ in range(min(longest, trunk.text.places.num_embeddings)):  # type: ignore[union-attr]
            batch = TaskBatch(patch_features, ids, torch.ones_like(ids, dtype=torch.bool))
            ids = torch.cat([ids, self.scores(trunk, batch)[:, -1].argmax(-1, keepdim=True)], dim=1)
            if (ids == end).any(1).all():
                break
        rows = ids[:, 1:].tolist()
        return [row[: row.index(end)] if end in row else row for row in rows]
