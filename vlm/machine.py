"""What this process may use of its machine: in a container that is less than the machine has."""

import ctypes
import os
import platform
from pathlib import Path

import psutil  # comes with accelerate

CGROUP = Path("/sys/fs/cgroup")  # of Linux, in version 2: the limits of this process's container


def usable_cores() -> int:
    """Physical cores, as many as this process may run on. More threads than that would wait for each other."""
    # Not every machine tells its physical cores
    counts = [psutil.cpu_count(logical=False) or os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):  # on Linux alone
        counts.append(len(os.sched_getaffinity(0)))
    quota, _, period = _told("cpu.max").partition(" ")  # microseconds of work in each period, or "max"
    if quota.isdecimal() and period.isdecimal():
        counts.append(-(-int(quota) // int(period)))
    return max(1, min(counts))


def usable_memory() -> tuple[int, int]:
    """Bytes of memory that are free for a model, and all of them."""
    machine = psutil.virtual_memory()
    limit = _told("memory.max")
    if not limit.isdecimal() or int(limit) >= machine.total:
        return machine.available, machine.total
    used = int(_told("memory.current") or 0) - _files_kept()
    return max(0, min(machine.available, int(limit) - used)), int(limit)


def share_heaps() -> None:
    """Let all threads take their memory from two heaps. Else glibc gives each of a server's many threads its own, and what
    one thread has freed no other uses: a twentieth of the memory here."""
    if glibc := _glibc():
        m_arena_max = -8  # malloc.h
        glibc.mallopt(m_arena_max, 2)


def trim_heaps() -> None:
    """Give back to the system what pictures and their features have left free between what is still used: a gigabyte after
    an hour of chat and search, which glibc keeps for itself."""
    if glibc := _glibc():
        glibc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _files_kept() -> int:
    """Bytes that hold files which were read, and are given back when memory is wanted."""
    lines = dict(line.split(" ", 1) for line in _told("memory.stat").splitlines())
    return int(lines.get("inactive_file", 0)) + int(lines.get("active_file", 0))


def _told(name: str) -> str:
    """ "" where there is no such limit."""
    try:
        return (CGROUP / name).read_text(encoding="ascii").strip()
    except OSError:
        return ""
