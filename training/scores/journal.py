"""Answers as they come, one a line of JSON, so that an evaluation that was killed goes on where it stopped.

The first line says which adapter and settings the answers are of. Options that only choose questions are not in it: a
larger --limit finds the answers of a smaller one.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlm.errors import UserError

Key = tuple[str, str]  # digest of the picture's bytes, question


@dataclass(frozen=True)
class Reply:
    """What the assistant answered to one question about one picture."""

    picture: str  # id
    image: str  # digest of its bytes
    question: str
    text: str
    draft: str
    clean_up: str
    tokens: int
    ended: bool
    seen: str
    seconds: float

    @property
    def key(self) -> Key:
        return self.image, self.question


class Journal:
    """A file of replies behind a header; without a file, replies are only held in memory."""

    def __init__(self, file: Path | None, header: dict[str, Any]) -> None:
        self.file = file
        self.replies: dict[Key, Reply] = {}
        if file is None:
            return
        if file.is_file() and (lines := _whole_lines(file)):
            _check_header(file, lines[0], header)
            replies = [Reply(**json.loads(line)) for line in lines[1:]]
            self.replies = {reply.key: reply for reply in replies}
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_line(header), encoding="utf-8")

    def add(self, reply: Reply) -> None:
        self.replies[reply.key] = reply
        if self.file:
            with self.file.open("a", encoding="utf-8") as lines:
                lines.write(_line(asdict(reply)))


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"


def _whole_lines(file: Path) -> list[str]:
    """The lines; half a line that a killed run left at the end is cut off."""
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with file.open("r+b") as opened:
            opened.truncate(len(whole))
    # splitlines() also divides at U+2028, which an answer may hold
    return whole.decode("utf-8").split("\n")[:-1]


def _check_header(file: Path, line: str, header: dict[str, Any]) -> None:
    try:
        found = json.loads(line)
        differing = [name for name in header if found[name] != header[name]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not a file of answers. Give another --output.") from error
    if differing:
        raise UserError(
            f"{file} holds answers of another evaluation: {', '.join(differing)} differ. Remove it to start again, "
            "or give another --output."
        )
