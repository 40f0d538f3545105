"""Pictures and recordings as messages have them -> files, which are opened again when the model is free: decoded, those of
all who wait would not fit into memory.

A picture is a data URL, an upload or, where its host is allowed, an address; a recording is base64 or an upload.
"""

from collections.abc import Collection, Iterable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
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

    async def pictures(self, references: Iterable[str], folder: Path) -> tuple[Path, ...]:
        """Each is checked to be one. What is sent or fetched is put into the folder."""
        return tuple([await self._picture(each, folder) for each in references])

    async def recordings(self, given: Iterable[InputAudio | str], folder: Path) -> list[Path]:
        """What is sent as base64 is put into the folder."""
        return [await run_in_threadpool(self._recording, each, folder) for each in given]

    async def _picture(self, reference: str, folder: Path) -> Path:
        if reference.startswith(("http://", "https://")):
            return await run_in_threadpool(_kept, await self._fetched(reference), folder)
        if not reference.startswith((PREFIX, "data:")):
            raise ApiError(
                400,
                "A picture is sent as data:image/...;base64,..., or by the identifier of an uploaded file.",
            )
        return await run_in_threadpool(self._given, reference, folder)

    def _given(self, reference: str, folder: Path) -> Path:
        if not reference.startswith(PREFIX):
            return _kept(data_of(reference, "The picture", MAX_PICTURE_BYTES), folder)
        path = self.uploads.get(reference).path
        open_image(path)
        return path

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
        return _put(
            bytes_of(given.data, "The recording", MAX_RECORDING_BYTES), folder, f"recording.{given.format}"
        )


def _kept(picture: bytes, folder: Path) -> Path:
    open_image(picture)
    return _put(picture, folder, "picture")


def _put(content: bytes, folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)  # it is swept away when it is empty for long
    path = folder / f"{len(list(folder.iterdir()))}-{name}"
    path.write_bytes(content)
    return path


def _host(address: str) -> str:
    try:
        return urlsplit(address).netloc.lower()
    except ValueError as error:  # "http://["
        raise ApiError(400, "The picture's address is none.") from error
