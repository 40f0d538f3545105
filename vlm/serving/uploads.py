"""The server's own folder for what people send, bounded in size: files go after four hours, all of it at the end, or at the
next start after a kill.

Gradio puts uploads, and the copies that it makes of them, where GRADIO_TEMP_DIR says.
"""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from vlm.errors import UserError

KEEP_SECONDS = 4 * 60 * 60
SWEEP_SECONDS = 60


class NoRoom(UserError):
    def __init__(self) -> None:
        super().__init__("There is no room for more files now. Please try again later.")


class Uploads:
    """`folder` belongs to this server alone. `most_bytes` is for all people together."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        self._on_disk, self._measured = 0, 0.0
        self._announced = 0
        self._lock = threading.Lock()

    def size(self) -> int:
        """Bytes in the folder, as of a second ago at most."""
        with self._lock:
            return self._measure()

    def hold(self, more: int) -> None:
        """To be called before so many bytes are written: they count at once. Raises NoRoom."""
        with self._lock:
            self._check_room(more)
            self._on_disk += more

    def announce(self, more: int) -> None:
        """So many bytes are about to come, however slowly: they count until `arrived`. Raises NoRoom."""
        with self._lock:
            self._check_room(more)
            self._announced += more

    def arrived(self, size: int) -> None:
        """What was announced is on the disk, or does not come."""
        with self._lock:
            self._announced -= size
            self._on_disk += size  # until it is measured anew

    def _check_room(self, more: int) -> None:
        if self._measure() + more > self.most_bytes:
            raise NoRoom

    def _measure(self) -> int:
        """Bytes on the disk and to come: what is half here counts twice for so long, rather than not at all."""
        if time.monotonic() - self._measured > 1:
            self._on_disk = sum(size for _, size, _ in self._files())
            self._measured = time.monotonic()
        return self._on_disk + self._announced

    def sweep(self) -> None:
        """Delete what is older than KEEP_SECONDS, and folders that are empty since."""
        now = time.time()
        for path, _, modified in self._files():
            if now - modified > KEEP_SECONDS:
                with suppress(OSError):  # gone, or read now, where that keeps it
                    path.unlink()
        for folder, _, _ in os.walk(self.folder, topdown=False):
            with suppress(OSError):  # not empty, or gone
                if folder != str(self.folder) and now - os.stat(folder).st_mtime > SWEEP_SECONDS:
                    os.rmdir(folder)

    def _files(self) -> Iterator[tuple[Path, int, float]]:
        """(path, bytes, when it was modified)"""
        for folder, _, names in os.walk(self.folder):
            for name in names:
                with suppress(OSError):
                    found = os.stat(path := Path(folder, name))
                    yield path, found.st_size, found.st_mtime


@contextmanager
def own_uploads(base: Path | None, most_bytes: int) -> Iterator[Uploads]:
    """The folder of this server in `base`, or in the system's temporary folder; gone at the end.

    Those of servers that were killed are deleted first: nobody holds their locks any more."""
    parent = (base or Path(tempfile.gettempdir()) / f"ask-a-picture-{_user()}").absolute()
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_orphans(parent)
        folder = Path(tempfile.mkdtemp(prefix="uploads-", dir=parent))
    except OSError as problem:
        raise UserError(
            f"The folder {parent} for uploads cannot be used ({problem.strerror}). Name another one with GRADIO_TEMP_DIR."
        ) from problem
    lock = FileLock(folder.with_suffix(".lock"))
    uploads = Uploads(folder, most_bytes)
    swept = threading.Event()
    with lock:
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
        sweeping = threading.Thread(target=_sweep_until, args=(uploads, swept), name="uploads", daemon=True)
        sweeping.start()
        try:
            yield uploads
        finally:
            swept.set()
            shutil.rmtree(folder, ignore_errors=True)
    folder.with_suffix(".lock").unlink(missing_ok=True)


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else "uploads"


def _sweep_until(uploads: Uploads, ended: threading.Event) -> None:
    while not ended.wait(SWEEP_SECONDS):
        uploads.sweep()


def _remove_orphans(parent: Path) -> None:
    # Of folders and of their locks
    for folder in {path.with_suffix("") for path in parent.glob("uploads-*")}:
        lock = folder.with_suffix(".lock")
        try:
            with FileLock(lock, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
        except Timeout:
            continue  # its server runs
        lock.unlink(missing_ok=True)
