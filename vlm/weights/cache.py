"""The user's cache of weights: what is in it was made once, is whole, and is known by its SHA-256."""

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from vlm.errors import UserError
from vlm.locks import in_turn
from vlm.whole_files import whole_folder

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"


def cache_folder() -> Path:
    """Where files made from wheels are kept; `VLM_CACHE` moves it."""
    return Path(os.environ.get("VLM_CACHE") or "~/.cache/vlm").expanduser()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def has_hash(path: Path, sha256: str) -> bool:
    """Whether the file of the cache has this hash.

    Reading a gigabyte takes seconds at every start, so the file's size and time are noted beside it once its hash is
    known, and it is read again only when they differ."""
    try:
        seen = _seen(path, sha256)
        with suppress(OSError, ValueError):
            if json.loads(_stamp(path).read_text()) == seen:
                return True
        if sha256_of(path) != sha256:
            return False
    except OSError:  # it is not there, or cannot be read: whoever makes it anew says why that fails
        return False
    with suppress(OSError):  # a cache that this account may only read
        _stamp(path).write_text(json.dumps(seen))
    return True


def note_hash(path: Path) -> str:
    """The SHA-256 of a file that was just written to the cache, noted for the next `has_hash`."""
    sha256 = sha256_of(path)
    _stamp(path).write_text(json.dumps(_seen(path, sha256)))
    return sha256


def forget(path: Path) -> None:
    """Delete a file of the cache, with what is noted of it."""
    path.unlink()
    _stamp(path).unlink(missing_ok=True)


def _seen(path: Path, sha256: str) -> list[object]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, sha256]


def _stamp(path: Path) -> Path:
    return path.with_name(f".{path.name}.verified")


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Within it this process alone makes `target`. What the disk refuses is a UserError."""
    try:
        with in_turn(target):
            yield
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{target} could not be written ({error}). Free some disk space or set VLM_CACHE to a folder on a disk "
            "that has some, and start again."
        ) from error


def check_space(target: Path, needed: int) -> None:
    """Raise OSError unless `needed` more bytes fit on the disk of `target`, which is to be written."""
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{needed:,} bytes more are needed on its disk, and {free:,} are free")


def made_folder(target: Path, write: Callable[[Path], None]) -> Path:
    """`target`, filled by `write` where it is not there or was altered.

    It is filled under another name and gets a manifest: a killed run leaves no half-written weight."""
    if _is_intact(target):
        return target
    with writing(target):
        if _is_intact(target):  # another process was faster
            return target
        if target.exists():
            log.warning("%s was altered. It is made again.", target)
        with whole_folder(target) as working:
            write(working)
            files = sorted(path for path in working.rglob("*") if path.is_file())
            manifest = {path.relative_to(working).as_posix(): note_hash(path) for path in files}
            (working / MANIFEST).write_text(json.dumps(manifest, indent=1))
            for path in files:  # safetensors keeps its file from other accounts
                path.chmod((working / MANIFEST).stat().st_mode)
    return target


def _is_intact(target: Path) -> bool:
    try:
        manifest = json.loads((target / MANIFEST).read_text())
        return all(has_hash(target / name, sha256) for name, sha256 in manifest.items())
    except (OSError, ValueError):
        return False
