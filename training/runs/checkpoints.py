"""What every run of the Trainer has: its examples in their order, no step that would make the weights NaN, and two
checkpoints: the latest that was written to its end, and the best or else the one before.
"""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments

log = logging.getLogger("training")

WHOLE = "whole"  # the last file of a checkpoint: without it the run was killed while it was written


def checkpoints_of(folder: Path) -> list[Path]:
    """The oldest first."""
    return sorted(folder.glob("checkpoint-*"), key=steps_of)


def steps_of(checkpoint: str | Path | None) -> int:
    """After how many steps it was written; 0 for none."""
    return int(Path(checkpoint).name.rpartition("-")[2]) if checkpoint else 0


def finish_checkpoint(folder: Path, best: str | None) -> None:
    """Say that the newest checkpoint is whole, and only then remove those that it replaces: the Trainer would do so
    before, and a kill meanwhile leave the newest half removed. `best` is the Trainer's path of the best."""
    *older, newest = checkpoints_of(folder)
    (newest / WHOLE).touch()
    spared = [Path(best).name] if best else [path.name for path in older[-1:]]
    for path in older:
        if path.name not in spared:
            (path / WHOLE).unlink(missing_ok=True)
            shutil.rmtree(path)


def last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end. Those that were not are removed by the main process; the others
    need not wait for it, as they do not look at them."""
    whole = []
    for path in checkpoints_of(folder):
        if (path / WHOLE).exists():
            whole.append(path)
        elif PartialState().is_main_process:
            shutil.rmtree(path)
    return str(whole[-1]) if whole else None


class OrderedTrainer(Trainer):
    """Trainer that takes its examples in the order that they are laid out in, skips a step whose gradients are not finite,
    and whose checkpoints are kept as here. A process has one GPU: divided among several by the Trainer, a batch would lose
    which picture is of which conversation."""

    optimizer: torch.optim.Optimizer | None

    def __init__(self, *, args: TrainingArguments, **parts: Any) -> None:
        if args.n_gpu > 1:
            log.warning(
                "one of %d GPUs is used; finetune and align use all where `accelerate launch -m` starts them",
                args.n_gpu,
            )
            args._n_gpu = 1
        super().__init__(args=args, **parts)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = self.new_optimizer(model)
            self.optimizer.register_step_pre_hook(skip_what_is_not_finite)
        return self.optimizer

    def new_optimizer(self, model: Any) -> torch.optim.Optimizer:
        """The Trainer's own; a subclass may have another."""
        return super().create_optimizer(model)

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset or self.train_dataset)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # each process writes the state of its random numbers
        if not self.args.should_save:
            return
        folder = Path(self._get_output_dir(trial))
        self.save_beside(folder)
        finish_checkpoint(folder, self.state.best_model_checkpoint)

    def save_beside(self, folder: Path) -> None:
        """What else is kept of a checkpoint, in the folder that all of them are in."""


def _are_finite(gradients: Sequence[Any]) -> bool:
    """Asked once, as a GPU is waited for with each answer."""
    found: list[Any] = [each.isfinite().all() for each in gradients]
    # FSDP's are divided among the processes (DTensor)
    whole = [each.full_tensor() if hasattr(each, "full_tensor") else each for each in found]
    return bool(torch.stack([each.to(whole[0].device) for each in whole]).all())


def skip_what_is_not_finite(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Leave the weights as they are where a gradient is infinite or NaN: one such step would make them NaN for good."""
    trained = [each for group in optimizer.param_groups for each in group["params"] if each.grad is not None]
    if trained and not _are_finite([each.grad for each in trained]):
        log.warning("a gradient was not finite; its step is skipped")
        for each in trained:
            each.grad = None  # of zero, the optimizer's averages would still move them
