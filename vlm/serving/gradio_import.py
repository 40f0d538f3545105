"""Gradio, imported in half the time.

On import Gradio renders a .pyi of each component from its source, to compare with the one on disk. A component without a
source file is skipped, so here none has one.
"""

import inspect
import mimetypes
from typing import Any

_getfile = inspect.getfile


def _getfile_but_of_gradios(thing: Any) -> str:
    if isinstance(thing, type) and thing.__module__.startswith("gradio."):
        raise OSError("not looked for")
    return _getfile(thing)


inspect.getfile = _getfile_but_of_gradios  # type: ignore[assignment]
try:
    import gradio  # noqa: F401
finally:
    inspect.getfile = _getfile

# Of uploads, by which Gradio tells pictures from recordings. Python has no kinds of its own for these,
# and a container's system has no table.
for kind, endings in (
    ("image/jpeg", ".jfif"),
    ("image/apng", ".apng"),
    ("image/webp", ".webp"),
    ("audio/ogg", ".ogg .oga"),
    ("audio/flac", ".flac"),
    ("audio/mp4", ".m4a"),
    ("audio/webm", ".weba"),
    ("video/x-matroska", ".mkv"),
):
    for ending in endings.split():
        mimetypes.add_type(kind, ending)
