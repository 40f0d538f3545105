"""What a program sends as an argument -> text, a number, files; or a sentence that says what is wrong.

It can be anything that JSON can hold, so nothing is taken for granted. Files are what was uploaded before, by path or by
this server's own address of it, or the content itself as a data URL. Nothing is fetched from elsewhere.
"""

import base64
import math
import mimetypes
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from gradio.utils import get_upload_folder

from vlm.errors import UserError
from vlm.serving.callers import current_caller
from vlm.serving.received import received

OWN_FILE = "/gradio_api/file="
NOT_FETCHED = (
    "Files are not fetched from other addresses here. Download it and send the file itself (gradio_client: "
    'handle_file("cat.jpg")), or a data URL.'
)


def text_of(value: Any, name: str) -> str:
    """Missing text is empty."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{name} must be text.")
    try:
        value.encode()
    except UnicodeEncodeError as problem:
        raise UserError(
            f"{name} holds half of a character (a lone surrogate). Please send whole characters."
        ) from problem
    return value


def number_of(value: Any, name: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # Whole numbers know no bound.
    if not is_number or (isinstance(value, float) and not math.isfinite(value)):
        raise UserError(f"{name} must be a number.")
    return value


def whole_of(value: Any, name: str) -> int:
    number = number_of(value, name)
    if number != int(number):
        raise UserError(f"{name} must be a whole number.")
    return int(number)


def flag_of(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{name} must be true or false.")
    return value


def file_of(value: Any, name: str, most_bytes: int) -> str | None:
    """The path of a file that was sent; None where there is none."""
    paths = files_of(value, name, 1, most_bytes)
    return paths[0] if paths else None


def files_of(value: Any, name: str, most: int, most_bytes: int) -> list[str]:
    """Paths of files that were sent: one, or a list of at most `most`."""
    if value is None or value == "":
        return []
    given = value if isinstance(value, list) else [value]
    if len(given) > most:
        raise UserError(f"{name} can be at most {most:,} file{'s' if most > 1 else ''}, not {len(given):,}.")
    return [_path_of(each, name, most_bytes) for each in given]


def _path_of(value: Any, name: str, most_bytes: int) -> str:
    reference = value.get("path") if isinstance(value, dict) else value
    if not isinstance(reference, str) or not reference:
        raise UserError(f'{name} must be a file (gradio_client: handle_file("cat.jpg")), or a list of files.')
    if reference.startswith("data:"):
        return _saved(reference, name, most_bytes)
    return own_path(reference)


def is_web_address(reference: str) -> bool:
    return reference.lower().startswith(("http://", "https://"))


def own_path(reference: str) -> str:
    """The path of an upload, or of an example, by its path or its address here. Raises UserError for anything else."""
    if is_web_address(reference):
        _, found, path = reference.partition(OWN_FILE)
        if not found:
            raise UserError(NOT_FETCHED)
        reference = unquote(path.split("?")[0])
    path_here = received(reference)
    if path_here is None:
        raise UserError("A file that was named is not here, or no longer. Please send it again.")
    return path_here


def _saved(url: str, name: str, most_bytes: int) -> str:
    """The content of a data URL as a file."""
    data = data_of(url, name, most_bytes)
    kind = url.partition(",")[0].removeprefix("data:").split(";")[0]
    suffix = mimetypes.guess_extension(kind.strip()) or ".bin"
    current_caller().hold(len(data))
    folder = Path(get_upload_folder(), secrets.token_hex(16))
    folder.mkdir(parents=True)
    path = folder / f"sent{suffix}"
    path.write_bytes(data)
    return str(path)


def data_of(url: str, name: str, most_bytes: int) -> bytes:
    """The content of a data URL (RFC 2397). Raises UserError, which calls it by `name`."""
    head, found, content = url.partition(",")
    if not found or not head.startswith("data:") or head.rpartition(";")[2].strip() != "base64":
        raise UserError(f"{name} is not a data URL in base64. Send data:image/png;base64, and the content.")
    return bytes_of(content, name, most_bytes)


def bytes_of(content: str, name: str, most_bytes: int) -> bytes:
    """What is sent as base64, in lines or in one. Raises UserError, before it is decoded where it is too large."""
    content = "".join(content.split())
    if len(content) * 3 // 4 > most_bytes + 2:  # of which the last two may be padding
        raise UserError(f"{name} is larger than {most_bytes // 2**20} MB. Make it smaller and try again.")
    try:
        return base64.b64decode(content, validate=True)
    except ValueError as problem:  # also half a group, or a letter that is none of ASCII
        raise UserError(f"{name} is no base64 data. Encode it again, and send all of it.") from problem
