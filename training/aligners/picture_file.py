"""Pictures' bytes in a temporary file, for encoders that train on more than the memory holds."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path


class PictureFile:
    """The image bytes of pictures by their ids, read from the disk as they are asked for. The file has no name and goes
    with the process."""

    def __init__(self, contents: Iterable[tuple[str, bytes]], folder: Path) -> None:
        self.places: dict[str, tuple[int, int]] = {}  # where its bytes begin, and how many they are
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # open as long as this is
        for name, content in contents:
            if name not in self.places:
                self.places[name] = self.file.tell(), len(content)
                self.file.write(content)
        self.file.flush()

    def __getitem__(self, name: str) -> bytes:
        start, length = self.places[name]
        if hasattr(os, "pread"):  # the workers of a data loader share the file's position
            return os.pread(self.file.fileno(), length, start)
        self.file.seek(start)
        return self.file.read(length)

    def items(self) -> Iterator[tuple[str, bytes]]:
        return ((name, self[name]) for name in self.places)
