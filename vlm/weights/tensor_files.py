"""Files of tensors (safetensors) -> tensors that are what they should be, and back.

A damaged file can be read and still spoil every answer: a name may be missing or foreign, a shape another one, a value
infinite or NaN. Files are written as the umask says, where safetensors keeps them from all other accounts.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from vlm.whole_files import whole_file

TOLD = 3  # names in a message
PICKLES = frozenset(
    {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"}
)  # endings; such files can run code


def to_store(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors as `save_tensors` takes them, all of one type."""
    return {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in state.items()}


def save_tensors(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str] | None = None) -> None:
    """Write contiguous tensors of the CPU, all or none."""
    with whole_file(file) as partial:
        partial.write_bytes(safetensors.torch.save(tensors, metadata))


def load_tensors(file: Path, expected: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The tensors of a file, checked to be finite; and to have the names and shapes of `expected`, where that is given.
    Raises ValueError, which names what is wrong."""
    with file.open("rb"):  # safetensors does not name a file that may not be read
        tensors = safetensors.torch.load_file(file)
    if expected is not None:
        check_names(tensors, expected, file.name)
        for name, tensor in expected.items():
            if tensors[name].shape != tensor.shape:
                shapes = list(tensors[name].shape), list(tensor.shape)
                raise ValueError(f"{name} in {file.name} has the shape {shapes[0]} and not {shapes[1]}")
    check_values(tensors, file.name)
    return tensors


def check_names(found: Iterable[str], expected: Iterable[str], where: str) -> None:
    """Raise ValueError where a name is missing or foreign."""
    missing, foreign = sorted({*expected} - {*found}), sorted({*found} - {*expected})
    for names, wrong in ((missing, "has no"), (foreign, "has a foreign")):
        if names:
            more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
            raise ValueError(f"{where} {wrong} {', '.join(names[:TOLD])}{more}")


def check_values(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise ValueError where a value is no finite number."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{name} in {where} holds {tensor.dtype} and no fractions")
        if not tensor.isfinite().all():
            raise ValueError(f"{name} in {where} holds values that are infinite or no numbers")
