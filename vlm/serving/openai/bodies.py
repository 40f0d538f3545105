"""The body of a request -> JSON, or a form. How large it may be is checked for all routes (vlm/serving/guard.py)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pydantic_core import from_json
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request

from vlm.serving.openai.errors import ApiError

Read = TypeVar("Read")
RECEIVE_SECONDS = 120.0


async def json_of(request: Request) -> dict[str, Any]:
    """The JSON object in the body."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "Please send JSON, with the header Content-Type: application/json.")
    body = await _in_time(request.body())
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
    form = await _in_time(_form(request))
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
