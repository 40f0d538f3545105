"""Multi-head attention of one sequence to another or to itself, for Q-Former, resampler and cross-attention."""

from torch import Tensor, nn
from torch.nn import functional


class MultiHeadAttention(nn.Module):
    """States [B, S, W] look at a source [B, L, C] -> [B, S, W] (arXiv:1706.03762)."""

    def __init__(self, width: int, source_width: int, heads: int, head_size: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, heads * head_size, bias)
        self.key = nn.Linear(source_width, heads * head_size, bias)
        self.value = nn.Linear(source_width, heads * head_size, bias)
        self.output = nn.Linear(heads * head_size, width, bias)

    def forward(self, states: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` [B, S, L] is True where a state may look; each must be allowed to look somewhere."""
        return self.look(states, *self.remember(source), mask)

    def remember(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the source, [B, heads, L, head_size] each, to look at more than once."""
        return self._by_head(self.key(source)), self._by_head(self.value(source))

    def look(self, states: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        allowed = None if mask is None else mask.unsqueeze(1)
        query = self._by_head(self.query(states))
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def _by_head(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)
