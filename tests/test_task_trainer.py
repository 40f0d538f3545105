"""The trainer of heads: its log's parts add up to its loss, and no step makes its weights NaN."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from training.heads import TaskTrainer
from training.tasks.data import only


class OneWeight(nn.Module):
    """Its loss is the weight times the input, of one task."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.weighting = SimpleNamespace(shares=lambda: {"caption": 1.0})

    def forward(self, batches: dict[str, Tensor]) -> dict[str, Tensor]:
        loss = (self.weight * batches["caption"]).sum()
        return {"loss": loss, "loss/caption": loss.detach()}


def trained_on(inputs: list[float], folder: Path, rate: float) -> TaskTrainer:
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=1, max_steps=len(inputs), learning_rate=rate,
        logging_steps=2, save_strategy="no", use_cpu=True, report_to="none", disable_tqdm=True,
        remove_unused_columns=False,
    )  # fmt: skip
    steps = [{"caption": torch.tensor([value])} for value in inputs]
    trainer = TaskTrainer(model=OneWeight(), args=arguments, train_dataset=steps, data_collator=only)
    trainer.train()
    return trainer


def test_the_losses_of_the_tasks_are_means_over_the_steps_of_a_line_as_the_loss_is(tmp_path: Path) -> None:
    logged = trained_on([1.0, 3.0, 5.0, 9.0], tmp_path, rate=0.0).state.log_history
    told = [(line["loss"], line["loss/caption"]) for line in logged if "loss" in line]
    assert told == [(2.0, 2.0), (7.0, 7.0)]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_step_whose_gradient_is_not_finite_is_skipped(
    broken: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = trained_on([1.0, broken, 1.0], tmp_path, rate=0.1)
    assert trainer.model.weight.isfinite().all() and trainer.model.weight != 1.0  # type: ignore[union-attr]
    assert caplog.text.count("its step is skipped") == 1
