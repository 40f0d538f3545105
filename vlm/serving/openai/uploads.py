"""Files sent once, to be named in later messages: POST /v1/files -> an identifier that nobody can guess."""

import asyncio
import mimetypes
import re
import secrets
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from starlette.concurrency import run_in_threadpool

from vlm.serving.openai.errors import ApiError

PREFIX = "file-"
RECORDING_PREFIX = "file-audio-"  # so that a message that names a file says what it is
KEPT_SECONDS = 4 * 60 * 60  # as uploads on the page
MAX_BYTES = 2**30  # of all files together


@dataclass(frozen=True)
class Uploaded:
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
            "expires_at": self.created + KEPT_SECONDS,
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
        }


class Uploads:
    """They lie in a folder of their own, which goes with this process."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="uploads-", ignore_cleanup_errors=True)
        self._files: dict[str, Uploaded] = {}

    async def add(self, file: BinaryIO, name: str, size: int, purpose: str) -> Uploaded:
        """The file is deleted when its time is up."""
        if sum(each.size for each in self._files.values()) + size > MAX_BYTES:
            raise ApiError(429, "There is no room for more files now. Delete some, or try again later.")
        kind = mimetypes.guess_type(name)[0] or ""
        spoken = kind.startswith("audio/") or kind in ("video/webm", "video/mp4")  # as browsers record
        prefix = RECORDING_PREFIX if spoken else PREFIX
        identity = prefix + secrets.token_hex(16)
        path = Path(self._folder.name) / f"{identity}{suffix_of(name)}"
        uploaded = Uploaded(path, PurePath(name).name[:255], size, int(time.time()), purpose)
        self._files[identity] = uploaded
        asyncio.get_running_loop().call_later(KEPT_SECONDS, self._remove, identity)
        await run_in_threadpool(copy, file, path)
        return uploaded

    def get(self, identity: str) -> Uploaded:
        if identity not in self._files:
            raise ApiError(404, f"There is no file {identity!r}; uploads are kept for four hours.")
        return self._files[identity]

    def delete(self, identity: str) -> None:
        self.get(identity)
        self._remove(identity)

    def _remove(self, identity: str) -> None:
        if uploaded := self._files.pop(identity, None):
            uploaded.path.unlink(missing_ok=True)


def suffix_of(name: str) -> str:
    """The ending of a name that somebody gave; "" unless it is a plain one."""
    suffix = PurePath(name).suffix
    return suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", suffix) else ""


def copy(file: BinaryIO, path: Path) -> None:
    with path.open("wb") as target:
        shutil.copyfileobj(file, target)
