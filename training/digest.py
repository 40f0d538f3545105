"""Values -> a short text that tells them from others: of settings, and of what a file was made of; text -> a fraction."""

import hashlib
from collections.abc import Iterable
from typing import Any


def digest(values: Iterable[Any]) -> str:
    """Of the text forms of all of them, in order."""
    result = hashlib.sha256()
    for value in values:
        result.update(repr(value).encode(errors="backslashreplace"))
    return result.hexdigest()[:16]


def fraction_of(text: str) -> float:
    """[0, 1), the same on every machine."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 16**12
