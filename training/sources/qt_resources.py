"""Qt resource files (.rcc, magic "qres"): a tree of named files in one, as Qt programs ship their pictures.

In: the file. Out: an Entry for each file inside, and its bytes. Names are UTF-16, all numbers are
big-endian, and an entry may be compressed with zlib; zstd, which Qt also knows, is refused. Counts, offsets and
sizes come from the file and are checked before use, so that a broken one ends in a ValueError with its name.
"""

import struct
import zlib
from pathlib import Path
from typing import NamedTuple

ZLIB, FOLDER, ZSTD = 1, 2, 4  # flags of a node
MAX_ENTRY_BYTES = 64 << 20


class Entry(NamedTuple):
    path: str  # "gcompris/src/activities/erase/resource/bee.webp"
    offset: int  # of its content, in the file
    size: int
    flags: int


def list_entries(file: Path) -> list[Entry]:
    """Every file inside, in the order of the tree."""
    try:
        return walk(file.read_bytes())
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{file} is not a whole Qt resource file: {error}") from error


def walk(data: bytes) -> list[Entry]:
    magic, version, tree, contents, names = struct.unpack_from(">4s4I", data)
    if magic != b"qres" or version not in (1, 2, 3):
        raise ValueError("it does not start like one")
    node_size = 14 if version == 1 else 22  # version 2 added the time of the last change
    most = len(data) // node_size  # files and folders it has room for
    found, waiting, seen = [], [(0, "")], 0
    while waiting:
        number, folder = waiting.pop()
        seen += 1
        if seen > most:
            raise ValueError("its tree has a loop")
        start = tree + number * node_size
        name_offset, flags, first, second = struct.unpack_from(">IHII", data, start)
        (length,) = struct.unpack_from(">H", data, names + name_offset)
        at = names + name_offset + 6  # after the length and a hash
        name = data[at : at + 2 * length]
        path = f"{folder}/{name.decode('utf-16-be')}".strip("/")
        if flags & FOLDER:  # first: how many children, second: the first one's number
            if first > most or second <= number:  # Qt writes children after their folder
                raise ValueError(f"its folder {path} is broken")
            waiting += [(child, path) for child in reversed(range(second, second + first))]
        else:  # first: language, second: where its length and content are
            (size,) = struct.unpack_from(">I", data, contents + second)
            found.append(Entry(path, contents + second + 4, size, flags))
        if len(name) < 2 * length or (found and found[-1].offset + found[-1].size > len(data)):
            raise ValueError(f"{path} is cut short")
    return found


def read_entry(file: Path, entry: Entry) -> bytes:
    if entry.flags & ZSTD:
        raise ValueError(f"{entry.path} in {file} is compressed with zstd, which is not read here")
    with file.open("rb") as opened:
        opened.seek(entry.offset)
        data = opened.read(entry.size)
    if not entry.flags & ZLIB:
        return data
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data[4:], MAX_ENTRY_BYTES)  # after its length when decompressed
    except zlib.error as error:
        raise ValueError(f"{entry.path} in {file} is broken: {error}") from error
    if not stream.eof:
        raise ValueError(f"{entry.path} in {file} is cut short, or larger than {MAX_ENTRY_BYTES} bytes")
    return content
