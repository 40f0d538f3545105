"""One trunk and a head for each of its tasks, trained together."""

from collections.abc import Mapping

from torch import Tensor, nn

from vlm.errors import UserError
from vlm.model.connectors.q_former import QFormer
from vlm.model.heads import TASKS
from vlm.model.heads.matching import likeness_of
from vlm.model.heads.task import TaskBatch
from vlm.model.heads.weighting import FixedWeights, Uncertainty

WEIGHTINGS = {"fixed": FixedWeights, "uncertainty": Uncertainty}


class MultiTask(nn.Module):
    def __init__(self, trunk: QFormer, heads: Mapping[str, nn.Module], weighting: nn.Module) -> None:
        super().__init__()
        self.trunk, self.heads, self.weighting = trunk, nn.ModuleDict(heads), weighting

    def losses(self, batches: Mapping[str, TaskBatch]) -> dict[str, Tensor]:
        """Each task on its own batch. Where retrieval is a task, matching takes its hard negatives from it."""
        found = {}
        for task, batch in batches.items():
            head = self.heads[task]
            if task == "matching" and "retrieval" in self.heads:
                found[task] = head.loss(
                    self.trunk, batch, likeness_of(self.trunk, self.heads["retrieval"], batch)
                )
            else:
                found[task] = head.loss(self.trunk, batch)
        return found

    def forward(self, batches: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """As Trainer takes it: the loss, and beside it that of each task."""
        losses = self.losses({task: TaskBatch(**batch) for task, batch in batches.items()})
        return {
            "loss": self.weighting(losses),
            **{f"loss/{task}": loss.detach() for task, loss in losses.items()},
        }


def build_multi_task(trunk: QFormer, weights: Mapping[str, float], weighting: str, answers: int) -> MultiTask:
    """A head for each task of `weights`, which names those of TASKS."""
    if trunk.text is None:
        raise UserError("Tasks need a Q-Former that reads text.")
    if weighting not in WEIGHTINGS:
        raise UserError(f"There is no weighting {weighting!r}. Valid: {', '.join(WEIGHTINGS)}.")
    if not weights or min(weights.values()) <= 0:
        raise UserError("Each task needs a weight above 0, such as tasks: {caption: 1.0}.")
    vocabulary, width = trunk.text.words.weight.shape
    heads = {task: TASKS[task](width, vocabulary, answers) for task in weights}
    return MultiTask(trunk, heads, WEIGHTINGS[weighting](weights))
