"""A request's body, bounded while it comes in; and the moment when whoever sent it goes away."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from vlm.serving.openai.errors import ApiError

Message = MutableMapping[str, Any]
UPLOAD = "/gradio_api/upload"
JSON_BYTES = 32 * 2**20  # a picture of 20 MB as text is 27 MB
SILENT_SECONDS = 60  # of a body under way, whose announced size is kept free meanwhile
MAX_VALUES = 100_000  # in one JSON body: a list of 30 MB of nothing takes a gigabyte once it is read
ESCAPED = re.compile(rb"\\.", re.DOTALL)
DISCONNECT: Message = {"type": "http.disconnect"}


class Refused(Exception):
    """A request that is not let in, with the status that says so."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        super().__init__(reason)


def is_upload(path: str) -> bool:
    return path.rstrip("/") == UPLOAD


def refusal_response(path: str, status: int, reason: str, headers: Mapping[str, str]) -> Response:
    """To a program in OpenAI's form under /v1, else as Gradio does; of an upload the page shows the text as it is."""
    if is_upload(path):
        return PlainTextResponse(reason, status, headers)
    body = ApiError(status, reason).body if path.startswith("/v1/") else {"error": reason, "detail": reason}
    return JSONResponse(body, status, headers)


class ValueCount:
    """The values of JSON that comes in pieces. A comma within a text counts for none: a talk about tables has many."""

    def __init__(self) -> None:
        self.total = 0
        self._begun, self._in_text, self._is_wide = b"", False, False

    def add(self, piece: bytes) -> None:
        self._is_wide |= b"\0" in piece
        if self._is_wide:  # UTF-16 or UTF-32, which Python reads as well: all is counted
            outside = [piece]
        else:
            whole = ESCAPED.sub(b"", self._begun + piece)  # only texts have escapes
            self._begun = b"\\" if whole.endswith(b"\\") else b""
            parts = whole.split(b'"')
            outside = parts[self._in_text :: 2]
            self._in_text ^= len(parts) % 2 == 0
        self.total += sum(each.count(sign) for each in outside for sign in (b",", b"[", b"{"))


class BoundedBody:
    """`receive` and `send` for the app. What is too large is answered with 413, what stops coming with 408, and for
    the app the client is gone.

    `gone` is set once the client is."""

    def __init__(
        self,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
        path: str,
        most_bytes: int,
        files: bool,
    ) -> None:
        self._receive, self._send = receive, send
        self._path, self._most_bytes, self._files = path, most_bytes, files
        self.bytes, self._values = 0, ValueCount()
        self._refused = self._complete = self._started = False
        self._watch: asyncio.Task[None] | None = None
        self.gone = asyncio.Event()

    async def receive(self) -> Message:
        if self._complete:
            await self.gone.wait()
            return DISCONNECT
        try:
            message = await asyncio.wait_for(self._receive(), SILENT_SECONDS)
        except TimeoutError:
            return await self._refuse(408, f"Nothing has come for {SILENT_SECONDS} seconds.")
        if message["type"] == "http.disconnect":
            self._complete = True
            self.gone.set()
            return message
        chunk = message.get("body", b"")
        self.bytes += len(chunk)
        if not self._files:
            self._values.add(chunk)
        if self.bytes > self._most_bytes or self._values.total > MAX_VALUES:
            most = f"At most {self._most_bytes // 2**20} MB and {MAX_VALUES:,} values"
            return await self._refuse(413, f"{most} can be sent at once.")
        if not message.get("more_body", False):
            self._complete = True
            self._watch = asyncio.create_task(self._wait_for_end())
        return message

    async def send(self, message: Message) -> None:
        if not self._refused:
            self._started = True
            await self._send(message)

    def end(self) -> None:
        if self._watch:
            self._watch.cancel()

    async def _wait_for_end(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone.set()

    async def _refuse(self, status: int, reason: str) -> Message:
        """Nothing more of the body is read."""
        self._complete = self._refused = True
        self.gone.set()
        if not self._started:
            response = refusal_response(self._path, status, reason, {"Connection": "close"})
            await response({"type": "http"}, self._receive, self._send)
        return DISCONNECT
