"""The body of a request, bounded before it is in memory or on the disk."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pydantic_core import from_json
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from vlm.serving.openai.errors import ApiError

Read = TypeVar("Read")
MAX_JSON = 32 * 2**20  # bytes; the largest picture of 20 MB takes 27 as base64
MAX_UPLOAD = 64 * 2**20  # as on the page
DISCARDED = 4  # times the limit is read and thrown away, so that whoever still sends gets to read the refusal
RECEIVE_SECONDS = 120.0


class BoundedBody:
    """`receive` of a request, which raises ApiError as soon as more than `limit` bytes have come."""

    def __init__(self, request: Request, limit: int) -> None:
        self._receive, self._limit, self._size = request.receive, limit, 0
        self._announced = int(request.headers.get("content-length") or 0)

    async def __call__(self) -> Message:
        if max(self._announced, self._size) > self._limit:
            await self._refuse()
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size > self._limit:
            await self._refuse()
        return message

    async def _refuse(self) -> None:
        more = True
        while more and self._size < DISCARDED * self._limit:
            message = await self._receive()
            self._size += len(message.get("body", b""))
            more = message.get("more_body", False)
        raise ApiError(
            413, f"The request is larger than {self._limit // 2**20} MB. Please send less at once."
        )


async def json_of(request: Request) -> dict[str, Any]:
    """The JSON object in the body."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "Please send JSON, with the header Content-Type: application/json.")
    bounded = Request(request.scope, BoundedBody(request, MAX_JSON))
    body = await _in_time(bounded.body())
    try:
        read = from_json(body)
    except ValueError as error:
        raise ApiError(400, f"The body is no JSON: {error}.") from error
    if not isinstance(read, dict):
        raise ApiError(400, "The body must be a JSON object.")
    return read


@asynccontextmanager
async def form_of(request: Request) -> AsyncIterator[tuple[FormData, UploadFile]]:
    """The multipart form in the body, and the `file` in it, which is on the disk where it is large, and gone afterwards."""
    form = await _in_time(_form(Request(request.scope, BoundedBody(request, MAX_UPLOAD))))
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise ApiError(
                400, "Please send a form (multipart/form-data) with the file in `file`.", None, "file"
            )
        yield form, file
    finally:
        await form.close()


async def _form(request: Request) -> FormData:
    try:
        return await request.form(max_files=1, max_fields=20)
    except MultiPartException as error:
        raise ApiError(400, f"The form could not be read: {error.message}") from error


async def _in_time(reading: Awaitable[Read]) -> Read:
    try:
        async with asyncio.timeout(RECEIVE_SECONDS):
            return await reading
    except TimeoutError as error:
        raise ApiError(408, f"The body did not come within {RECEIVE_SECONDS:g} seconds.") from error
    except ClientDisconnect as error:
        raise ApiError(400, "The connection was closed before the body was here.") from error
