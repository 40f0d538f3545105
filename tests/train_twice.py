"""python -m tests.train_twice --preset FILE: training.finetune, and in the same processes once more, as if it had been
killed after the second step of its joint stage; on the CPU, with FSDP where the environment asks for it.

Processes of their own for the second time would import torch again, which takes longer than the training.
"""

import os
import shutil
import sys
from pathlib import Path

from accelerate import PartialState

from tests.fsdp_on_cpu import divide_on_cpu


def forget_the_end(output: Path) -> None:
    """Of a run of three joint steps. The whole run is kept in `OUTPUT-unbroken`."""
    shutil.copytree(output, f"{output}-unbroken")
    for folder in ("joint/checkpoint-3", "joint/adapter", "adapter"):
        shutil.rmtree(output / folder)


if __name__ == "__main__":
    if os.environ.get("ACCELERATE_USE_FSDP"):
        divide_on_cpu()
    if os.environ.get("ACCELERATE_USE_DEEPSPEED"):
        import deepspeed

        # For CPUs alone it would compile a way to talk through shared memory, for minutes; without it they use gloo
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    from training import finetune
    from training.config import load_training_config

    finetune.draw = lambda *_: None  # type: ignore[assignment]
    finetune.main()
    processes = PartialState()
    processes.wait_for_everyone()
    if processes.is_main_process:
        forget_the_end(Path(load_training_config(sys.argv[sys.argv.index("--preset") + 1]).output))
    processes.wait_for_everyone()
    finetune.main()
