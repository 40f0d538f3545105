"""Gradio, imported in half the time.

Whenever it is imported it parses the source of each of its components and renders a .pyi of it, to find that the one beside
it is the same. It leaves out what has no source file.
"""

import inspect
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
