"""Losses of several tasks -> one: with fixed weights, or weights that are learned with the tasks."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class FixedWeights(nn.Module):
    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.weights = dict(weights)

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([self.weights[task] * loss for task, loss in losses.items()]).sum()

    def shares(self) -> dict[str, float]:
        return dict(self.weights)


class Uncertainty(nn.Module):
    """Each task's noise is learned: a loss is divided by its variance, whose logarithm keeps it from growing without end
    (Kendall et al., arXiv:1705.07115). The fixed weights are where it starts."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        logs = {task: nn.Parameter(-torch.tensor(float(weight)).log()) for task, weight in weights.items()}
        self.log_variance = nn.ParameterDict(logs)

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        logs = self.log_variance
        return torch.stack(
            [loss * (-logs[task]).exp() + logs[task] / 2 for task, loss in losses.items()]
        ).sum()

    def shares(self) -> dict[str, float]:
        """What each loss is multiplied with now."""
        return {task: float((-log).detach().exp()) for task, log in self.log_variance.items()}
