"""What commands print, on terminals that cannot show every character."""

import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vlm.errors import UserError


@contextmanager
def command(name: str) -> Iterator[None]:
    """Every command's `main` is within it: the terminal shows anything, and a UserError is one line, `name: ...`, on stderr
    and exit status 1; Ctrl-C is the shell's 130."""
    show_anything()
    try:
        yield
    except UserError as error:
        raise SystemExit(f"{name}: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def show_anything() -> None:
    """A character that the terminal does not know becomes "?", where Python would end in a UnicodeEncodeError."""
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
