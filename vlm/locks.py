"""Files and folders that one process at a time writes. The system takes the lock back from a process that is killed."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vlm.errors import UserError

log = logging.getLogger(__name__)


@contextmanager
def in_turn(target: Path) -> Iterator[None]:
    """Within it this process alone writes `target`; another one waits."""
    lock = _lock_of(target)
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        log.warning("Another process is making %s. Waiting for it.", target)
        held = lock.acquire()
    with held:
        yield


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Within it one command alone works in `folder`, with all its processes. Raises UserError where another one does, or
    where nothing can be written."""
    if os.environ.get("RANK", "0") != "0":  # of the processes of one training the first holds it
        yield
        return
    try:
        held = _lock_of(folder).acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"Another command is at work in {folder}. Wait until it has ended, or name another folder."
        ) from None
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error}). Name another folder.") from error
    with held:
        yield


def _lock_of(target: Path) -> FileLock:
    target = target.absolute()  # a folder may be given as "."
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir() and not os.access(target.parent, os.W_OK):  # such as a volume, /data
        return FileLock(target / ".lock")
    return FileLock(target.with_name(f".{target.name}.lock"))
