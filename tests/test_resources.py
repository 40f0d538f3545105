"""A full disk and a full memory are one sentence with the remedy; anything else stays what it is."""

import errno
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from training.runs import resources
from training.runs.resources import disk_limit, memory_limit
from vlm.errors import UserError

# As they were seen on a disk of one megabyte: Python and pyarrow, safetensors 0.8, torch 2.13
FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
    RuntimeError("basic_ios::clear: iostream error"),
]


@pytest.mark.parametrize("error", FULL)
def test_a_full_disk_says_how_much_to_free_and_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(resources, "free_bytes", lambda folder: 10**8 if folder == tmp_path / "b" else 10**10)
    with (
        pytest.raises(
            UserError, match=r"disk is full \(0\.1 GB are free for .*/b\): free at least 1 GB and go on\.$"
        ),
        disk_limit(tmp_path / "a", tmp_path / "b", resume="go on"),
    ):
        raise ValueError("what came of it") from error


def test_as_much_is_to_be_freed_as_the_run_has_written(tmp_path: Path) -> None:
    with (tmp_path / "checkpoint").open("wb") as file:
        file.truncate(3 * 10**9 + 1)  # a hole: takes no room on disk
    with pytest.raises(UserError, match="free at least 4 GB"), disk_limit(tmp_path, resume="", like=tmp_path):
        raise FULL[0]


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    for error in (FileNotFoundError("no file"), *FULL[2:]):  # there is room: torch means something else
        with pytest.raises(type(error)) as told, disk_limit(tmp_path / "not" / "there", resume=""):
            raise error
        assert told.value is error
    with pytest.raises(RuntimeError, match="shapes"), memory_limit(""):
        raise RuntimeError("shapes differ")
    with pytest.raises(RuntimeError, match="Hardware limit"), disk_limit(tmp_path, resume=""):
        raise RuntimeError("out of resource: shared memory, Required: 9, Hardware limit: 8")  # a GPU kernel's


@pytest.mark.parametrize(
    "told",
    [
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
        "shared memory. Please try to raise your shared memory limit.",
        "unable to allocate shared memory(shm) for file </torch_7_1>: No space left on device (28)",
        "unable to write to file </torch_7_1>: No space left on device (28)",
    ],
)
def test_shared_memory_that_a_container_has_too_little_of_names_the_option(tmp_path: Path, told: str) -> None:
    remedy = r"shared memory \(/dev/shm\).* is full: start it with --shm-size=8g or --ipc=host of docker run, and go on\.$"
    with pytest.raises(UserError, match=remedy), disk_limit(tmp_path, resume="go on"):
        raise RuntimeError(told)


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), "GPU"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
            "machine",
        ),
        (MemoryError(), "machine"),
    ],
)
def test_a_full_memory_names_the_remedies(error: Exception, where: str) -> None:
    with pytest.raises(UserError, match=f"memory of the {where} is full: go on.$"), memory_limit("go on"):
        raise error
