"""One process at a time: a second command in a folder is refused, and who writes the same features waits."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conftest import ROOT
from vlm.errors import UserError
from vlm.locks import alone_in, in_turn

HOLD = """
import sys, time
from pathlib import Path
from vlm.locks import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_command_in_a_folder_is_told_until_the_first_has_ended_or_is_killed(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "one"
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout and first.stdout.readline() == "held\n"
    with (
        pytest.raises(UserError, match="Another command is at work in .*one. Wait until it has ended"),
        alone_in(run),
    ):
        raise AssertionError("both at once")
    with alone_in(tmp_path / "runs" / "two"):
        pass
    first.kill()
    first.wait()
    with alone_in(run):
        assert not run.exists()


def test_the_processes_of_one_training_are_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with alone_in(tmp_path / "run"):
        monkeypatch.setenv("RANK", "1")
        with alone_in(tmp_path / "run"):
            pass


def test_where_nothing_can_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"run cannot be written \(.*\). Name another folder"),
        alone_in(tmp_path / "file" / "run"),
    ):
        raise AssertionError("written")


def test_those_who_write_the_same_wait_for_each_other(tmp_path: Path) -> None:
    order = []

    def write() -> None:
        with in_turn(tmp_path / "features"):
            order.append("second")

    with in_turn(tmp_path / "features"):
        second = threading.Thread(target=write)
        second.start()
        second.join(0.5)
        order.append("first")
    second.join(10)
    assert order == ["first", "second"]


def test_a_folder_whose_own_place_cannot_be_written_is_held_within(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)
    with alone_in(volume), pytest.raises(UserError, match="at work"), alone_in(volume):
        raise AssertionError("both at once")
    assert [each.name for each in tmp_path.rglob("*")] == ["volume", ".lock"]
