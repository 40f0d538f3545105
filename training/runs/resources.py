"""A disk or a memory that is full -> one sentence with the remedy; memory that is kept from step to step.

Safetensors and torch do not raise OSError where the disk is full, so their messages are looked at too.
"""

import ctypes
import errno
import math
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from vlm.errors import UserError
from vlm.locks import alone_in

GIGABYTE = 10**9
SHARED_MEMORY = (
    "out of shared memory",
    "unable to allocate shared memory",
    "unable to write to file </torch_",
)  # torch's words
GOES_ON = "give the command again; it goes on from its last checkpoint, which is kept"


@contextmanager
def training_in(output: Path, data: Path, spare: str) -> Iterator[None]:
    """Within it this command alone trains in `output`, and a full disk or memory is a UserError. `spare` says how a run
    of this kind takes less memory, and goes on."""
    with alone_in(output), memory_limit(spare), disk_limit(output, data, resume=GOES_ON, like=output):
        yield


@contextmanager
def disk_limit(*folders: Path, resume: str, like: Path | None = None) -> Iterator[None]:
    """Within it a full disk is a UserError. `folders` are where it writes, `resume` says how to go on. As much as `like`
    holds should be freed, at least a gigabyte."""
    try:
        yield
    except Exception as error:
        if is_shared_memory_full(error):  # it is a disk to the system, and not one of `folders`
            raise UserError(
                "The shared memory (/dev/shm) that this container gives to the processes of training is full: start it "
                f"with --shm-size=8g or --ipc=host of docker run, and {resume}."
            ) from error
        if not is_disk_full(error, folders):
            raise
        fullest = min(folders, key=free_bytes)
        needed = max(1, math.ceil(size_of(like) / GIGABYTE)) if like else 1
        raise UserError(
            f"The disk is full ({free_bytes(fullest) / GIGABYTE:.1f} GB are free for {fullest}): free at least "
            f"{needed} GB and {resume}."
        ) from error


@contextmanager
def memory_limit(spare: str) -> Iterator[None]:
    """Within it a full memory is a UserError, for training. `spare` says what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch's own is a RuntimeError
        if not is_memory_full(error):
            raise
        where = "GPU" if isinstance(error, torch.OutOfMemoryError) else "machine"
        raise UserError(f"The memory of the {where} is full: {spare}.") from error


def is_disk_full(error: BaseException | None, folders: Sequence[Path]) -> bool:
    """Whether it, or what it came from, is a disk without room."""
    while error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        text = str(error)
        if "No space left on device" in text or "quota exceeded" in text:
            return True
        # torch.save tells no reason
        unexplained = "iostream error" in text or "inline_container" in text
        if unexplained and min(map(free_bytes, folders)) < GIGABYTE:
            return True
        error = error.__cause__ or error.__context__
    return False


def is_shared_memory_full(error: BaseException | None) -> bool:
    """Whether it, or what it came from, is a worker that had no room for what it sends."""
    while error:
        if any(told in str(error) for told in SHARED_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_memory_full(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(told in str(error) for told in ("can't allocate memory", "out of memory", "ALLOC_FAILED"))


def free_bytes(folder: Path) -> int:
    """Of the disk that the folder is on, or will be."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def size_of(folder: Path) -> int:
    """Bytes of all files below it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def keep_memory() -> None:
    """Tell glibc to keep freed memory: handing the activations of each step back to the system and asking for them
    again takes a third of a training step on a CPU."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3  # malloc.h
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, (1 << 31) - 1)
        libc.mallopt(m_top_pad, 1 << 28)
