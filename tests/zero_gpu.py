"""app.py as ZeroGPU runs it, on a machine without a GPU: `python -m tests.zero_gpu`.

Everything is the `spaces` package's own: the emulated CUDA of the app's process, the weights packed at the start, the
process forked for each call. Only the two steps that take a real GPU, its initialisation and the copy of the weights to
it, are played by the CPU.
"""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

if torch.version.cuda is None:  # spaces expects a build with CUDA, though the app's process never calls these
    torch.version.cuda, torch._C._cuda_init, torch.cuda._is_in_bad_fork = "13.0", None, bool
    torch._C._cuda_getCurrentRawStream = None  # bitsandbytes looks for it

import spaces  # noqa: E402
from spaces.zero import torch as zero  # noqa: E402
from spaces.zero.torch import patching  # noqa: E402


def unpack_to_cpu(callback: Callable[[int], Any] | None = None) -> None:
    """What `spaces` packed at the start, in place of `pack_to_cuda`: aligned pieces, batches first."""
    assert patching.tensor_packs, "The weights were not on the (emulated) GPU when the page was launched."
    for pack in patching.tensor_packs:
        packed, offset = Path(pack.path()).read_bytes(), 0
        for meta, size, aligned_size in [*sum(pack.batches, []), *pack.big_tensors]:
            plain = torch.frombuffer(bytearray(packed[offset : offset + size]), dtype=meta.dtype)
            for fake in pack.fakes[meta]:
                fake.data = plain.as_strided(meta.shape, meta.stride())
            offset += aligned_size


zero.init = lambda nvidia_uuid: None
zero.move = unpack_to_cpu

if __name__ == "__main__":
    assert spaces.config.Config.zero_gpu
    runpy.run_path(str(Path(__file__).parent.parent / "app.py"), run_name="__main__")
