"""Cores and memory that this process may use, with a folder in place of the container's limits."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from vlm import machine
from vlm.machine import usable_cores, usable_memory

GIGABYTE = 10**9


@pytest.fixture(autouse=True)
def limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a container on a machine with 8 physical cores and 32 GB, of which 20 are free."""
    free = SimpleNamespace(available=20 * GIGABYTE, total=32 * GIGABYTE)
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 16 if logical else 8)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("150000 100000", 2), ("20000 100000", 1), ("3200000 100000", 8)]
)
def test_a_containers_quota_bounds_the_cores(limits: Path, quota: str, cores: int) -> None:
    (limits / "cpu.max").write_text(f"{quota}\n")
    assert usable_cores() == cores


def test_without_a_container_the_cores_are_those_that_the_process_may_run_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert usable_cores() == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2})
    assert usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores() == 8
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: None)  # as where nothing tells them apart
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cores() == 6


def test_a_containers_memory_is_what_counts_without_the_files_that_it_read(limits: Path) -> None:
    assert usable_memory() == (20 * GIGABYTE, 32 * GIGABYTE)
    (limits / "memory.max").write_text("max\n")
    assert usable_memory() == (20 * GIGABYTE, 32 * GIGABYTE)
    (limits / "memory.max").write_text(f"{8 * GIGABYTE}\n")
    (limits / "memory.current").write_text(f"{5 * GIGABYTE}\n")
    (limits / "memory.stat").write_text(f"anon {2 * GIGABYTE}\nactive_file 0\ninactive_file {3 * GIGABYTE}\n")
    assert usable_memory() == (6 * GIGABYTE, 8 * GIGABYTE)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone keeps what is free for itself")
def test_what_is_free_within_the_heaps_goes_back_to_the_system() -> None:
    """In a process of its own: another test's heap may hold much already."""
    program = """
import psutil
from vlm.machine import trim_heaps
in_memory = lambda: psutil.Process().memory_info().rss
before = in_memory()
held = [b"x" * 60_000 for _ in range(3_000)]  # small enough to come from the heap
del held[:-1]  # the last one lies at its end, which glibc gives back from
kept = in_memory() - before
trim_heaps()
print(kept, in_memory() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    kept, after = map(int, done.stdout.split())
    assert kept > 100_000_000 and after < kept / 4
