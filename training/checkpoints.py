"""The checkpoints of a run: which of them were written to their end."""

import shutil
from pathlib import Path

from accelerate import PartialState

WHOLE = "whole"  # the last file of a checkpoint: without it the run was killed while it was written


def last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; the others are removed, by one process alone."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    with PartialState().main_process_first():
        for path in found:
            if path.exists() and not (path / WHOLE).exists():
                shutil.rmtree(path)
    whole = [path for path in found if path.exists()]
    return str(whole[-1]) if whole else None
