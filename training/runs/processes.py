"""The processes of one training."""

from datetime import timedelta

import torch
from accelerate import PartialState

PATIENCE = timedelta(
    hours=12
)  # the others wait while the main process encodes all pictures; NCCL's own is ten minutes


def join_processes() -> PartialState:
    """Meet the other processes that `accelerate launch` started; alone without it."""
    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
