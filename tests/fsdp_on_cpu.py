"""Weights that are divided among processes on the CPU.

accelerate divides them among GPUs alone, though PyTorch's FSDP runs on a CPU as well; here it is told that one of the
kinds of devices that it does this for is a CPU.
"""

from typing import Any

import accelerate.state
from accelerate.utils import DistributedType


class _Kinds:
    def __getattr__(self, name: str) -> Any:
        return getattr(DistributedType, "MULTI_CPU" if name == "MULTI_NEURON" else name)


def divide_on_cpu() -> None:
    accelerate.state.DistributedType = _Kinds()  # type: ignore[misc,assignment]
