"""Whenever a run is killed, its newest checkpoint is whole."""

import shutil
from pathlib import Path

import pytest
from accelerate import PartialState

from training.runs.checkpoints import WHOLE, finish_checkpoint, last_whole_checkpoint


def write_checkpoint(folder: Path, step: int) -> None:
    (folder / f"checkpoint-{step}").mkdir()
    (folder / f"checkpoint-{step}" / "weights").write_text(str(step))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("best", "kept"), [(None, [3, 4]), ("run/checkpoint-1", [1, 4]), ("run/checkpoint-4", [4])]
)
def test_the_latest_and_the_best_or_the_one_before_are_kept(
    tmp_path: Path, best: str | None, kept: list[int]
) -> None:
    for step in (1, 2, 3, 4):
        write_checkpoint(tmp_path, step)
    finish_checkpoint(tmp_path, best)
    assert names(tmp_path) == [f"checkpoint-{step}" for step in kept]


def test_a_kill_while_an_old_one_is_removed_leaves_the_new_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        write_checkpoint(tmp_path, step)
        finish_checkpoint(tmp_path, str(tmp_path / "checkpoint-1"))
    write_checkpoint(tmp_path, 3)

    def killed(path: Path) -> None:
        (path / "weights").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", killed)
        finish_checkpoint(tmp_path, str(tmp_path / "checkpoint-1"))
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-3")
    assert (
        names(tmp_path) == ["checkpoint-1", "checkpoint-3"] and (tmp_path / "checkpoint-3" / WHOLE).exists()
    )


def test_only_the_main_process_removes_a_broken_checkpoint_and_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path, 1)
    finish_checkpoint(tmp_path, None)
    write_checkpoint(tmp_path, 2)
    monkeypatch.setattr(PartialState, "wait_for_everyone", lambda _: pytest.fail("a barrier"))
    for is_main, kept in ((False, ["checkpoint-1", "checkpoint-2"]), (True, ["checkpoint-1"])):
        monkeypatch.setattr(PartialState, "is_main_process", is_main)
        assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-1")
        assert names(tmp_path) == kept
