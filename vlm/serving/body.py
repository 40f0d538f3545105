"""A request's body, bounded while it comes in; and the moment when whoever sent it goes away."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import JSONResponse

from vlm.serving.openai.errors import ApiError

Message = MutableMapping[str, Any]
JSON_BYTES = 32 * 2**20  # a picture of 20 MB as text is 27 MB
MAX_VALUES = 100_000  # in one JSON body: a list of 30 MB of nothing takes a gigabyte once it is read
DISCONNECT: Message = {"type": "http.disconnect"}


class Refused(Exception):
    """A request that is not let in, with the status that says so."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        super().__init__(reason)


def refusal_body(path: str, status: int, reason: str) -> dict[str, Any]:
    """What is said to a program: in OpenAI's form under /v1, else as Gradio does."""
    return ApiError(status, reason).body if path.startswith("/v1/") else {"error": reason, "detail": reason}


class BoundedBody:
    """`receive` and `send` for the app. What is too large is answered with 413, and for the app the client is gone.

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
        self._bytes = self._values = 0
        self._refused = self._complete = self._started = False
        self._watch: asyncio.Task[None] | None = None
        self.gone = asyncio.Event()

    async def receive(self) -> Message:
        if self._complete:
            await self.gone.wait()
            return DISCONNECT
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._complete = True
            self.gone.set()
            return message
        chunk = message.get("body", b"")
        self._bytes += len(chunk)
        if not self._files:
            self._values += chunk.count(b",") + chunk.count(b"[") + chunk.count(b"{")
        if self._bytes > self._most_bytes or self._values > MAX_VALUES:
            return await self._refuse()
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

    async def _refuse(self) -> Message:
        """Nothing more of the body is read."""
        self._complete = self._refused = True
        self.gone.set()
        if not self._started:
            reason = f"At most {self._most_bytes // 2**20} MB and {MAX_VALUES:,} values can be sent at once."
            response = JSONResponse(refusal_body(self._path, 413, reason), 413, {"Connection": "close"})
            await response({"type": "http"}, self._receive, self._send)
        return DISCONNECT
