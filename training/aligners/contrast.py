"""Embeddings of matching pictures and texts -> the loss of an aligner. Pure functions.

`same` [B, B] says which text is true of which picture: the pairs themselves, and others that have the same picture or the
same text, which would be wrong negatives (supervised contrast, arXiv:2004.11362).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

CLIP_WEIGHT, MATRYOSHKA_WEIGHT = 0.25, 1.0


class Loss(NamedTuple):
    """`total` is what trains; its parts are for the log."""

    total: Tensor
    clip: Tensor
    matryoshka: Tensor


def info_nce(
    pictures: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, same: Tensor, has_text: Tensor
) -> Tensor:
    """CLIP's symmetric loss (arXiv:2103.00020): of unit vectors [B, D], each picture is to find its text among all texts,
    and each text its picture among all pictures.

    Text dropout: a pair whose text was dropped (`has_text` is false) asks for nothing, and its text is nobody's candidate;
    its picture stays one among which the other texts have to find theirs. `bias` is SigLIP's alone."""
    scores = scale * pictures @ texts[has_text].T  # [B, K]
    shares = same[:, has_text].to(scores)
    to_text = _cross_entropy(scores[has_text].log_softmax(1), shares[has_text])
    to_picture = _cross_entropy(scores.T.log_softmax(1), shares.T)
    return 0.5 * (to_text + to_picture)


def _cross_entropy(log_chances: Tensor, shares: Tensor) -> Tensor:
    """Each row's mean over what is the same, [M, N] both, then over the rows."""
    return -(log_chances * shares).sum(1).div(shares.sum(1)).mean()


def siglip(
    pictures: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, same: Tensor, has_text: Tensor
) -> Tensor:
    """SigLIP's loss (arXiv:2303.15343): every pair of a picture and a text is judged by itself, the same or not. Dropped
    texts are in no pair."""
    scores = scale * pictures @ texts.T + bias
    signs = 2 * same.to(scores) - 1
    return -functional.logsigmoid(signs * scores)[:, has_text].sum(1).mean()


LOSSES = {"infonce": info_nce, "siglip": siglip}


def shorten(embeddings: Tensor, dim: int) -> Tensor:
    """The first `dim` numbers of each embedding [B, E], of unit length again (Matryoshka, arXiv:2205.13147)."""
    return functional.normalize(embeddings[..., :dim], dim=-1)


def matryoshka_loss(
    kind: str,
    pictures: Tensor,
    texts: Tensor,
    scale: Tensor,
    bias: Tensor,
    same: Tensor,
    has_text: Tensor,
    dims: Sequence[int],
) -> Loss:
    """A quarter of the loss of whole embeddings, and the mean loss of those shortened to each of `dims`: one that was
    drawn for this batch, or all."""
    contrast = LOSSES[kind]
    clip = contrast(pictures, texts, scale, bias, same, has_text)
    short = [
        contrast(shorten(pictures, dim), shorten(texts, dim), scale, bias, same, has_text) for dim in dims
    ]
    matryoshka = torch.stack(short).mean()
    return Loss(CLIP_WEIGHT * clip + MATRYOSHKA_WEIGHT * matryoshka, clip, matryoshka)
