"""training.finetune, and in the same process once more, as if it had been killed after the second step of its joint stage:
a process of its own for the second time would import torch again, which takes longer than the training.

python -m tests.train_twice --preset FILE: the same as a program, which `accelerate launch` starts with DeepSpeed.
"""

import shutil
import sys
from pathlib import Path

from accelerate import PartialState


def forget_the_end(output: Path) -> None:
    """Of a run of three joint steps. The whole run is kept in `OUTPUT-unbroken`."""
    shutil.copytree(output, f"{output}-unbroken")
    for folder in ("joint/checkpoint-3", "joint/adapter", "adapter"):
        shutil.rmtree(output / folder)


def train_twice(output: Path) -> None:
    from training import finetune

    finetune.draw = lambda *_: None  # type: ignore[assignment]
    finetune.main()
    processes = PartialState()
    processes.wait_for_everyone()
    if processes.is_main_process:
        forget_the_end(output)
    processes.wait_for_everyone()
    finetune.main()


if __name__ == "__main__":
    import deepspeed

    # For CPUs alone it would compile a way to talk through shared memory, for minutes; without it they use gloo
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    from training.config import load_training_config

    train_twice(Path(load_training_config(sys.argv[sys.argv.index("--preset") + 1]).output))
