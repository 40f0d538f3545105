"""What people's data may hold that must not be taken as it is: paths that lead out of a folder, and texts that are none."""

import re
from pathlib import Path, PureWindowsPath
from typing import Any

# Bytes that were not UTF-8, and halves of characters from JSON
NOT_TEXT = re.compile("[\ud800-\udfff\ufffd]")


def leads_out(name: str) -> bool:
    """Whether a normalised path is absolute, has a drive, or starts by going up."""
    path = Path(name)
    return path.is_absolute() or bool(PureWindowsPath(name).drive) or path.parts[:1] == ("..",)


def fault(text: Any, role: str) -> str:
    """Why a text cannot be learned from; empty where it can."""
    if text is not None and not isinstance(text, str):
        return "malformed record"
    if not text or not text.strip():
        return f"empty {role}"
    return "text that is not UTF-8" if NOT_TEXT.search(text) else ""
