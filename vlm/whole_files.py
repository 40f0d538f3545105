"""Files and folders that appear whole or not at all: whoever is stopped or killed before leaves what was there.

They are written under a name that is the same each time, so that what a killed process left is written over by the next.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """Within it there is another name to write to, which then takes the place of `file`."""
    partial = file.with_name(f"{file.name}.partial")
    try:
        yield partial
        partial.replace(file)
    finally:
        with suppress(OSError):  # on a disk that may only be read
            partial.unlink(missing_ok=True)


def write_whole(file: Path, text: str) -> None:
    with whole_file(file) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(values: Any, file: Path) -> None:
    """As text for people, in a folder that is made where there is none. What no file may hold, the bytes of a name that is
    not UTF-8, is escaped and reads the same again."""
    text = json.dumps(values, indent=1, ensure_ascii=False).encode(errors="backslashreplace").decode()
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, text + "\n")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Within it there is an empty folder under another name, which then takes the place of `folder`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (folder.with_name(f".{folder.name}.{name}") for name in ("partial", "old"))
    if old.exists() and not folder.exists():  # killed between the two renames below
        old.rename(folder)
    for left in (partial, old):
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if folder.exists():
            folder.rename(old)
        try:
            partial.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
