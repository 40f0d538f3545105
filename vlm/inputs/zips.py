"""A zip of pictures -> the pictures in a folder. Zips are hostile until shown otherwise.

What is written is bounded by what really comes out, not by what the zip says of itself, and the names in it choose no
place: each picture is written under a number.
"""

import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import IO

from vlm.errors import UserError
from vlm.inputs.images import MAX_PICTURE_BYTES, SUFFIXES, PictureFile

MAX_FILES = 10_000
MAX_UNPACKED = 512 * 1024 * 1024  # bytes; pictures hardly shrink in a zip, and an upload has 64 MB
CHUNK = 1024 * 1024
LARGEST_READ = 4 * CHUNK  # zipfile reads the table of contents at once, and keeps ten times its size


class _TableTooLarge(Exception):
    pass


class _ShortReads(FileIO):
    """A file of which no more than LARGEST_READ is read at once: so much belongs to a table of too many files."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > LARGEST_READ:
            raise _TableTooLarge
        return super().read(-1 if size is None else size) or b""


def unpack_pictures(source: Path, folder: Path, hold: Callable[[int], None]) -> Iterator[PictureFile]:
    """The pictures of `source`, by their names in it, written into `folder`. Raises UserError; what was written before
    stays. A file that is too large for a picture is written up to the limit, so that whoever opens it says so.

    `hold` is told of each file's bytes before they are written, and raises UserError where there is no room."""
    title = f'The zip "{source.name[:60]}"'
    left = MAX_UNPACKED
    try:
        with _ShortReads(source) as file, zipfile.ZipFile(file) as archive:
            for number, entry in enumerate(_chosen(archive, title)):
                with archive.open(entry) as packed:
                    content = _read(packed)
                left -= len(content)
                if left < 0:
                    raise UserError(_too_large(title))
                path = folder / f"{number:05}{PurePosixPath(entry.filename).suffix.lower()}"
                hold(len(content))
                path.write_bytes(content)
                yield PictureFile(path, entry.filename)
    except UserError:
        raise
    except _TableTooLarge as problem:
        raise UserError(_too_many(title)) from problem
    except NotImplementedError as problem:
        raise UserError(f"{title} is packed in a way that is not known here. Make it again.") from problem
    except RuntimeError as problem:  # what zipfile raises where a password is needed
        raise UserError(f"{title} is protected by a password. Choose one that is not.") from problem
    except PermissionError as problem:
        raise UserError(f"{title} may not be read by this account. Change its permissions.") from problem
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as problem:
        raise UserError(f"{title} is damaged or no zip. Make it again, or choose its pictures.") from problem


def _read(packed: IO[bytes]) -> bytes:
    """As much of a file as a picture may have, and one chunk more of one that has more."""
    content = b""
    while len(content) <= MAX_PICTURE_BYTES and (chunk := packed.read(CHUNK)):
        content += chunk
    return content


def _chosen(archive: zipfile.ZipFile, title: str) -> list[zipfile.ZipInfo]:
    """The pictures, in order of their names. A zip that says of itself that it is too large is refused at once."""
    entries = archive.infolist()
    if len(entries) > MAX_FILES:
        raise UserError(_too_many(title))
    chosen = [entry for entry in entries if _is_picture(PurePosixPath(entry.filename))]
    if not chosen:
        raise UserError(f"{title} holds no pictures. Choose another one.")
    if sum(entry.file_size for entry in chosen) > MAX_UNPACKED:
        raise UserError(_too_large(title))
    return sorted(chosen, key=lambda entry: entry.filename)


def _is_picture(name: PurePosixPath) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts if part != "..")
    return name.suffix.lower() in SUFFIXES and not hidden


def _too_many(title: str) -> str:
    return f"{title} holds more than {MAX_FILES:,} files. Make several smaller ones of it."


def _too_large(title: str) -> str:
    return f"{title} would unpack to more than {MAX_UNPACKED // 2**20} MB. Make several smaller ones of it."
