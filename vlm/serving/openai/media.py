"""Pictures and recordings as messages have them -> pictures in memory, recordings as files.

A picture is a data URL, an upload or, where its host is allowed, an address; a recording is base64 or an upload.
"""

from collections.abc import Collection, Iterable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from PIL import Image
from starlette.concurrency import run_in_threadpool

from vlm.inputs.audio import MAX_RECORDING_BYTES
from vlm.inputs.images import MAX_PICTURE_BYTES, open_image
from vlm.serving.arguments import bytes_of, data_of
from vlm.serving.openai.access import PICTURE_HOSTS
from vlm.serving.openai.errors import ApiError
from vlm.serving.openai.files import PREFIX, ApiFiles
from vlm.serving.openai.requests import InputAudio

FETCH_SECONDS = 10.0


class Media:
    """`picture_hosts`: from where pictures may be fetched, as in addresses, with a port if any."""

    def __init__(self, uploads: ApiFiles, picture_hosts: Collection[str]) -> None:
        self.uploads, self.picture_hosts = uploads, picture_hosts

    async def pictures(self, references: Iterable[str]) -> tuple[Image.Image, ...]:
        return tuple([await self._picture(each) for each in references])

    async def recordings(self, given: Iterable[InputAudio | str], folder: Path) -> list[Path]:
        """What is sent as base64 is put into the folder."""
        return [await run_in_threadpool(self._recording, each, folder) for each in given]

    async def _picture(self, reference: str) -> Image.Image:
        if reference.startswith(PREFIX):
            return await run_in_threadpool(open_image, self.uploads.get(reference).path)
        if reference.startswith(("http://", "https://")):
            return await run_in_threadpool(open_image, await self._fetched(reference))
        if not reference.startswith("data:"):
            raise ApiError(
                400,
                "A picture is sent as data:image/...;base64,..., or by the identifier of an uploaded file.",
            )
        return await run_in_threadpool(
            lambda: open_image(data_of(reference, "The picture", MAX_PICTURE_BYTES))
        )

    async def _fetched(self, address: str) -> bytes:
        """No redirection is followed: it could lead to a host that is not allowed."""
        if _host(address) not in self.picture_hosts:
            raise ApiError(
                400,
                "Pictures from other machines are not fetched here. Send them as data:image/...;base64,... Whoever runs "
                f"this page can allow a host with {PICTURE_HOSTS}.",
            )
        content = bytearray()
        try:
            async with (
                httpx.AsyncClient(timeout=FETCH_SECONDS) as client,
                client.stream("GET", address) as response,
            ):
                if response.status_code != httpx.codes.OK:
                    raise ApiError(400, f"The picture's host answered with {response.status_code}.")
                async for piece in response.aiter_bytes():
                    content += piece
                    if len(content) > MAX_PICTURE_BYTES:
                        break  # open_image says so
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ApiError(400, "The picture could not be fetched from its host.") from error
        return bytes(content)

    def _recording(self, given: InputAudio | str, folder: Path) -> Path:
        if isinstance(given, str):
            return self.uploads.get(given).path
        path = folder / f"recording-{len(list(folder.iterdir()))}.{given.format}"
        path.write_bytes(bytes_of(given.data, "The recording", MAX_RECORDING_BYTES))
        return path


def _host(address: str) -> str:
    try:
        return urlsplit(address).netloc.lower()
    except ValueError as error:  # "http://["
        raise ApiError(400, "The picture's address is none.") from error
