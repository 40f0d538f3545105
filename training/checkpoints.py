"""The two checkpoints of a run: the latest that was written to its end, and the best or else the one before."""

import shutil
from pathlib import Path

from accelerate import PartialState

WHOLE = "whole"  # the last file of a checkpoint: without it the run was killed while it was written


def checkpoints_of(folder: Path) -> list[Path]:
    """The oldest first."""
    return sorted(folder.glob("checkpoint-*"), key=steps_of)


def steps_of(checkpoint: str | Path | None) -> int:
    """After how many steps it was written; 0 for none."""
    return int(Path(checkpoint).name.rpartition("-")[2]) if checkpoint else 0


def finish_checkpoint(folder: Path, best: str | None) -> None:
    """Say that the newest checkpoint is whole, and only then remove those that it replaces: the Trainer would do so
    before, and a kill meanwhile leave the newest half removed. `best` is the Trainer's path of the best."""
    *older, newest = checkpoints_of(folder)
    (newest / WHOLE).touch()
    spared = [Path(best).name] if best else [path.name for path in older[-1:]]
    for path in older:
        if path.name not in spared:
            (path / WHOLE).unlink(missing_ok=True)
            shutil.rmtree(path)


def last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; those that were not are removed, by one process alone."""
    found = checkpoints_of(folder)
    with PartialState().main_process_first():
        for path in found:
            if path.exists() and not (path / WHOLE).exists():
                shutil.rmtree(path)
    whole = [path for path in found if path.exists()]
    return str(whole[-1]) if whole else None
