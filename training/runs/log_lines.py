"""A run's log: what the Trainer logs, a line of JSON each."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from vlm.whole_files import write_whole

LOG = "log.jsonl"  # in the run's folder
NOT_LOGGED = ("runtime", "per_second", "flos", "train_loss")  # differ where a run was killed


class LogLines(TrainerCallback):
    """Appends to the log as it comes. A stage that goes on first forgets what it logged after its checkpoint."""

    def __init__(self, file: Path, stage: str) -> None:
        self.file, self.stage = file, stage

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            lines = log_lines(self.file) if self.file.is_file() else []
            kept = [
                each for each in lines if each["stage"] != self.stage or each["step"] <= state.global_step
            ]
            write_whole(self.file, "".join(json.dumps(line) + "\n" for line in kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        told = {name: value for name, value in logs.items() if not any(each in name for each in NOT_LOGGED)}
        if state.is_world_process_zero and told.keys() - {"epoch"}:
            line = {"stage": self.stage, "step": state.global_step} | told
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def log_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log; a broken one of a killed run is left out."""
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue
