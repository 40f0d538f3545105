"""A run's log becomes one picture: stages in a row, repeated steps once, broken lines left out."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.axes import Axes
from PIL import Image

from training.plot import draw, read_log, running_mean
from training.runs.log_lines import LogLines, log_lines
from vlm.errors import UserError


def log_of(folder: Path, *lines: dict[str, object]) -> Path:
    file = folder / "log.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"stage": "joi', encoding="utf-8")
    return file


def test_stages_follow_each_other_and_a_repeated_step_counts_once(tmp_path: Path) -> None:
    file = log_of(
        tmp_path,
        {"stage": "projector", "step": 10, "loss": 3.0, "learning_rate/connector": 0.1},
        {"stage": "projector", "step": 20, "loss": 2.0},
        {"stage": "joint", "step": 10, "loss": 9.0},
        {"stage": "joint", "step": 20, "eval_loss": 1.5},
        {"stage": "joint", "step": 10, "loss": 1.0},  # killed, and gone on from an earlier checkpoint
    )
    assert read_log(file) == {
        "loss": {10: 3.0, 20: 2.0, 30: 1.0},
        "learning_rate/connector": {10: 0.1},
        "eval_loss": {40: 1.5},
    }


def test_the_running_mean_of_a_constant_is_that_constant() -> None:
    assert running_mean({1: 2.0, 2: 2.0, 5: 2.0}) == pytest.approx({1: 2.0, 2: 2.0, 5: 2.0})
    assert running_mean({1: 0.0, 2: 1.0})[2] == pytest.approx(0.1 / 0.19)


def test_a_picture_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, tuple[list[int], list[float]]] = {}
    plot = Axes.plot

    def noted(axes: Axes, *points: Any, label: str, **how: Any) -> Any:
        drawn[label] = points[:2]
        return plot(axes, *points, label=label, **how)

    monkeypatch.setattr(Axes, "plot", noted)
    lines = [
        {"stage": "joint", "step": step, "loss": 4.0 / step, "learning_rate/lora": 1e-4}
        for step in (10, 20, 30)
    ]
    draw(
        read_log(log_of(tmp_path, *lines, {"stage": "joint", "step": 30, "eval_loss": 0.4})),
        tmp_path / "new/a.png",
    )
    assert set(drawn) == {"loss", "loss, running mean", "validation loss", "lora"}
    assert drawn["loss"] == ([10, 20, 30], [0.4, 0.2, 4.0 / 30])
    assert drawn["loss, running mean"][1] == pytest.approx([0.4, 0.2947, 0.2350], abs=2e-3)
    assert drawn["validation loss"] == ([30], [0.4])
    with Image.open(tmp_path / "new/a.png") as image:
        assert image.size == (960, 600)
        assert len(image.convert("RGB").getcolors(1 << 16) or []) > 10


def test_a_folder_without_a_log_is_a_plain_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--output"):
        read_log(tmp_path / "log.jsonl")


def test_a_stage_that_goes_on_forgets_what_it_logged_after_its_checkpoint(tmp_path: Path) -> None:
    lines: list[dict[str, object]] = [{"stage": "projector", "step": 9, "loss": 3.0}]
    lines += [{"stage": "joint", "step": step, "loss": 2.0} for step in (4, 5)]
    log = LogLines(log_of(tmp_path, *lines), "joint")
    state = SimpleNamespace(is_world_process_zero=True, global_step=4)
    log.on_train_begin(None, state, None)
    log.on_log(None, state, None, logs={"train_runtime": 9.0, "train_loss": 1.0, "epoch": 1.0})
    assert list(log_lines(log.file)) == lines[:2]
    state.global_step = 5
    log.on_log(None, state, None, logs={"loss": 1.0, "epoch": 1.0})
    assert list(log_lines(log.file))[2:] == [{"stage": "joint", "step": 5, "loss": 1.0, "epoch": 1.0}]
