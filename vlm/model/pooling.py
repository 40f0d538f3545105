"""Token features of one side [B, N, D] and which are there [B, N] -> one vector for each picture or text."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlm.config import HeadConfig
from vlm.errors import UserError
from vlm.model.standardise import Standardise


class ClassToken(nn.Module):
    """The first token, which the encoder made its summary. -> [B, D]"""

    def __init__(self, feature_size: int) -> None:
        super().__init__()
        self.pooled_size = feature_size

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        return features[:, 0]


class Mean(ClassToken):
    """The mean of the tokens that are there. -> [B, D]"""

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        weights = mask.unsqueeze(-1).to(features)
        return (features * weights).sum(1) / weights.sum(1).clamp(min=1)


class QueryPooling(nn.Module):
    """`queries` learned queries, each of `heads` heads, look at the tokens, as in Set Transformer's PMA (arXiv:1810.00825).
    -> [B, queries * D]

    A query that does not depend on the input needs no key projection (it would only turn the query), and values may be
    projected after they are averaged, which spares a product for every token. Queries of zeros begin as the mean."""

    def __init__(self, feature_size: int, queries: int, heads: int) -> None:
        super().__init__()
        if feature_size % heads:
            raise UserError(f"A head's heads must divide the {feature_size} features; {heads} were given.")
        self.heads, self.pooled_size = heads, queries * feature_size
        self.queries = nn.Parameter(torch.zeros(queries * heads, feature_size))
        if heads > 1:
            values = torch.randn(heads, feature_size, feature_size // heads) / feature_size**0.5
            self.values = nn.Parameter(values)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        scores = features @ self.queries.T / features.shape[-1] ** 0.5  # [B, N, queries * heads]
        shares = scores.masked_fill(~mask.unsqueeze(-1), float("-inf")).softmax(1)
        pooled = shares.transpose(1, 2) @ features  # [B, queries * heads, D]
        if self.heads > 1:
            pooled = pooled.unflatten(1, (-1, self.heads))  # [B, queries, heads, D]
            # Not `@`, which copies the values for each row of the batch: gigabytes
            pooled = torch.einsum("bqhd,hde->bqhe", pooled, self.values)
        return pooled.flatten(1)


POOLINGS: dict[str, Callable[[HeadConfig, int], ClassToken | QueryPooling]] = {
    "cls": lambda config, feature_size: ClassToken(feature_size),
    "mean": lambda config, feature_size: Mean(feature_size),
    "simple": lambda config, feature_size: QueryPooling(feature_size, queries=1, heads=1),
    "multihead": lambda config, feature_size: QueryPooling(feature_size, config.queries, config.heads),
}


def build_pooling(config: HeadConfig, feature_size: int) -> ClassToken | QueryPooling:
    if config.pooling not in POOLINGS:
        raise UserError(f"There is no pooling {config.pooling!r}. Valid: {', '.join(POOLINGS)}.")
    return POOLINGS[config.pooling](config, feature_size)


class Head(nn.Module):
    """Token features of a frozen or trained encoder -> embeddings [B, E] of unit length."""

    def __init__(self, pooling: ClassToken | QueryPooling, feature_size: int, hidden: int, size: int) -> None:
        super().__init__()
        self.normalise, self.pooling = Standardise(feature_size), pooling
        pooled = pooling.pooled_size
        self.layers = (
            nn.Sequential(nn.Linear(pooled, hidden), nn.GELU(), nn.Linear(hidden, size))
            if hidden
            else nn.Linear(pooled, size)
        )
        self.dropout = nn.Dropout(0.0)  # of the pooled features; training sets its share
        self.noise = 0.0  # that training adds to the normalised features, in their deviations

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, N, D], and which tokens are there (default: all) -> [B, E]"""
        mask = features.new_ones(features.shape[:2], dtype=torch.bool) if mask is None else mask
        normalised = self.normalise(features)
        if self.training and self.noise:
            normalised = normalised + self.noise * torch.randn_like(normalised)
        pooled = self.dropout(self.pooling(normalised, mask))
        return functional.normalize(self.layers(pooled).float(), dim=-1)


def build_head(config: HeadConfig, feature_size: int, size: int) -> Head:
    return Head(build_pooling(config, feature_size), feature_size, config.hidden, size)


class ClassGuess(nn.Module):
    """What the encoder's own classifier takes a picture for, as the mean of its classes in the space of texts, by their
    probabilities (ConSE, arXiv:1312.5650): an embedding of things that no pair has taught. [P, C] -> [P, E]"""

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        self.register_buffer("classes", torch.zeros(classes, size))  # as the text head last embedded them
        self.log_sharpness = nn.Parameter(torch.tensor(0.0))
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, scores: Tensor, classes: Tensor) -> Tensor:
        guess = (scores.float() * self.log_sharpness.exp()).softmax(-1) @ classes
        return self.weight * functional.normalize(guess, dim=-1)
