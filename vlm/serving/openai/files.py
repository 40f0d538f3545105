"""Files sent once, to be named in later messages: POST /v1/files -> an identifier that nobody can guess."""

import asyncio
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from gradio.utils import get_upload_folder
from starlette.concurrency import run_in_threadpool

from vlm.inputs.audio import is_recording
from vlm.serving.callers import current_caller
from vlm.serving.openai.errors import ApiError
from vlm.serving.uploads import KEEP_SECONDS, NoRoom

PREFIX = "file-"
RECORDING_PREFIX = "file-audio-"  # so that a message that names a file says what it is


@dataclass(frozen=True)
class ApiFile:
    path: Path
    name: str
    size: int
    created: int
    purpose: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.path.stem,
            "object": "file",
            "bytes": self.size,
            "created_at": self.created,
            "expires_at": self.created + KEEP_SECONDS,
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
        }


class ApiFiles:
    """They lie in a folder of their own among the server's uploads, with which they are counted and go."""

    def __init__(self) -> None:
        parent = Path(get_upload_folder())
        parent.mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(prefix="api-", dir=parent, ignore_cleanup_errors=True)
        self._files: dict[str, ApiFile] = {}

    async def add(self, file: BinaryIO, name: str, size: int, purpose: str) -> ApiFile:
        """The file is deleted when its time is up."""
        _hold(size)
        prefix = RECORDING_PREFIX if is_recording(name) else PREFIX
        identity = prefix + secrets.token_hex(16)
        path = Path(self._folder.name) / f"{identity}{suffix_of(name)}"
        uploaded = ApiFile(path, PurePath(name).name[:255], size, int(time.time()), purpose)
        self._files[identity] = uploaded
        asyncio.get_running_loop().call_later(KEEP_SECONDS, self._remove, identity)
        await run_in_threadpool(copy, file, path)
        return uploaded

    @contextmanager
    def passing(self, size: int = 0) -> Iterator[Path]:
        """A folder for what comes with one request: it counts with the uploads, and goes with them after a kill."""
        _hold(size)
        parent = Path(self._folder.name)
        parent.mkdir(exist_ok=True)  # it is swept away when it is empty for long
        with tempfile.TemporaryDirectory(prefix="passing-", dir=parent) as folder:
            yield Path(folder)

    def get(self, identity: str) -> ApiFile:
        if identity not in self._files or not self._files[identity].path.is_file():
            raise ApiError(404, f"There is no file {identity!r}; uploads are kept for four hours.")
        return self._files[identity]

    def delete(self, identity: str) -> None:
        self.get(identity)
        self._remove(identity)

    def _remove(self, identity: str) -> None:
        if uploaded := self._files.pop(identity, None):
            uploaded.path.unlink(missing_ok=True)


def _hold(size: int) -> None:
    try:
        current_caller().hold(size)
    except NoRoom as full:
        raise ApiError(507, str(full)) from full


def suffix_of(name: str) -> str:
    """The ending of a name that somebody gave; "" unless it is a plain one."""
    suffix = PurePath(name).suffix
    return suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", suffix) else ""


def copy(file: BinaryIO, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)  # it is swept away when it is empty for long
    with path.open("wb") as target:
        shutil.copyfileobj(file, target)
