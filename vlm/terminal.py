"""What commands print, on terminals that cannot show every character."""

import io
import json
import sys
from typing import Any


def show_anything() -> None:
    """A character that the terminal does not know becomes "?", where Python would end in a UnicodeEncodeError. Every
    command calls it first."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def to_json(value: Any) -> str:
    """JSON for people; where the terminal does not know a character, all such are escaped, so that none is lost."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, indent=1)
    return text
