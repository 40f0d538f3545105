"""Embeddings [M, E] -> points in the plane [M, 2], to look at."""

import torch
from torch import Tensor
from torch.nn import functional

PERPLEXITY, STEPS, EXAGGERATED = 15.0, 400, 100


def principal_axes(embeddings: Tensor) -> Tensor:
    """The two directions in which they differ most (PCA)."""
    centred = (embeddings - embeddings.mean(0)).double()
    left, strengths, _ = torch.linalg.svd(centred, full_matrices=False)
    return (left[:, :2] * strengths[:2]).float()


def t_sne(embeddings: Tensor) -> Tensor:
    """Exact t-SNE (van der Maaten and Hinton, 2008), started from the principal axes: for a few hundred points."""
    near = _neighbourhoods(torch.cdist(embeddings, embeddings).double().square())
    both = (near + near.T) / (2 * len(near))
    points = principal_axes(embeddings).double()
    points = 1e-4 * points / points[:, 0].std().clamp(min=1e-12)
    velocity = torch.zeros_like(points)
    rate = max(len(points) / 12.0, 10.0)
    for step in range(STEPS):
        kernel = 1 / (1 + torch.cdist(points, points).square())
        kernel.fill_diagonal_(0)
        exaggeration = 12.0 if step < EXAGGERATED else 1.0
        pull = (exaggeration * both - kernel / kernel.sum()) * kernel
        gradient = 4 * (pull.sum(1, keepdim=True) * points - pull @ points)
        velocity = (0.5 if step < EXAGGERATED else 0.8) * velocity - rate * gradient
        points = points + velocity
    return points.float()


def _neighbourhoods(distances: Tensor) -> Tensor:
    """Squared distances [M, M] -> how likely each point takes another for its neighbour [M, M], by a Gaussian whose width
    gives every point as many neighbours as PERPLEXITY says; the width is found by halving."""
    wanted = torch.log(torch.tensor(min(PERPLEXITY, (len(distances) - 1) / 3)))
    distances = distances.clone().fill_diagonal_(float("inf"))
    low, high = (
        torch.full((len(distances), 1), -20.0).double(),
        torch.full((len(distances), 1), 20.0).double(),
    )
    for _ in range(50):  # in logarithms
        middle = (low + high) / 2
        shares = functional.softmax(-distances * middle.exp(), dim=1)
        entropy = -(shares * shares.clamp(min=1e-300).log()).sum(1, keepdim=True)
        low, high = torch.where(entropy > wanted, middle, low), torch.where(entropy > wanted, high, middle)
    return shares
