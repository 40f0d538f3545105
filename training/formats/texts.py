"""Text files that people have -> records: LLaVA's JSON, CSV, and the captions of Flickr8k.

In: one file. Out: a `Record` for each of its records, in order, also for a broken one, so that a count of
records says where a killed conversion stopped. Nothing is opened but the file itself (the pictures
are only named), and a file is never held as a whole, not even LLaVA's single JSON array of a gigabyte.
Formats that are tables, parquet and `datasets`, are in tables.py.
"""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TextIO

from training.data.splits import hash_fraction
from training.wording.questions import DESCRIBE
from vlm.errors import UserError

CHUNK = 1 << 20  # characters of JSON read at a time
MAX_RECORD = 16 << 20  # characters; a longer record is a file that is not what it seems
ASKS, ANSWERS = ("human", "user"), ("gpt", "assistant")
SPEAKERS = (*ASKS, *ANSWERS, "system")
SYSTEM = "conversation without its system message"  # the preset has one
IMAGE = re.compile(r"\s*<image>\s*")
SEPARATORS, BORDER = re.compile(r"[\s,]*"), re.compile(r"[\s,\]]")


class Readable(Protocol):
    def read(self, size: int, /) -> str: ...


class Problem(NamedTuple):
    reason: str
    detail: str


@dataclass(frozen=True)
class Record:
    """What a file says about one picture. Texts are as found there; rows.py judges them."""

    names: tuple[str, ...] = ()  # the picture's path in the folder; of several, the first that exists
    content: bytes | None = None  # the picture's file, where the record itself holds it
    turns: tuple[tuple[Any, Any], ...] = ()  # (question, answer)
    ordered: bool = False  # the turns build on each other: a conversation
    caption: bool = False  # the answers are what people wrote about the picture
    facts: tuple[dict[str, Any], ...] = ()  # other columns of each turn's row, where they are known
    split: str = ""  # empty: decided by the picture
    problems: tuple[Problem, ...] = ()


def malformed(detail: str) -> Record:
    return Record(problems=(Problem("malformed record", detail),))


def describing_question(*parts: str) -> str:
    """Always the same wording of "Describe the picture." for the same picture and caption."""
    return DESCRIBE[int(hash_fraction("describe", *parts) * len(DESCRIBE))]


def open_text(file: Path) -> TextIO:
    """Without a byte order mark, and with U+FFFD where it is not UTF-8, so that one bad byte costs one record."""
    return file.open(encoding="utf-8-sig", errors="replace", newline="")


def from_csv(file: Path) -> Iterator[Record]:
    """Columns image, question, answer, and split if there is one, in any order."""
    with open_text(file) as text:
        lines = csv_lines(text)
        first = next(lines, [])
        header = [] if isinstance(first, csv.Error) else [name.strip().lower() for name in first]
        missing = [name for name in ("image", "question", "answer") if name not in header]
        if missing:
            raise UserError(
                f"{file} has no column {', '.join(missing)}. Its first line must name the columns, with commas "
                f"between: image,question,answer. It is: {','.join(header)[:200]}"
            )
        for values in lines:
            if isinstance(values, csv.Error):
                yield malformed(str(values))
            elif len(values) == len(header):
                row = dict(zip(header, values, strict=True))
                turn = (row["question"], row["answer"])
                yield Record(names=(row["image"].strip(),), turns=(turn,), split=row.get("split", ""))
            elif values:  # an unquoted comma would cut an answer off
                yield malformed(f"{len(values)} fields, the first line has {len(header)}: {','.join(values)}")


def csv_lines(text: TextIO) -> Iterator[list[str] | csv.Error]:
    """Reading goes on behind a line that is not CSV, such as one whose quote is never closed."""
    lines = csv.reader(text)
    while True:
        try:
            yield next(lines)
        except StopIteration:
            return
        except csv.Error as problem:
            yield problem


def from_flickr8k(file: Path) -> Iterator[Record]:
    """`image,caption` lines with a header (Kaggle), or `name.jpg#0<TAB>caption` (Flickr8k.token.txt)."""
    with open_text(file) as text:
        first = text.readline()
        kaggle = first.strip().lower() == "image,caption"
        if not kaggle and "\t" not in first:
            raise UserError(
                f"{file} is not a caption file of Flickr8k. Its first line must be image,caption "
                "or name.jpg#0, a tab and a caption."
            )
        for line in text if kaggle else chain([first], text):
            if kaggle:
                name, caption = (part.strip() for part in line.partition(",")[::2])
                if caption[:1] == caption[-1:] == '"':
                    caption = caption[1:-1].replace('""', '"')
            else:
                reference, caption = (part.strip() for part in line.partition("\t")[::2])
                name = reference.rpartition("#")[0] or reference
            if line.strip():
                yield Record(
                    names=(name,), turns=((describing_question(name, caption), caption),), caption=True
                )


def from_llava(file: Path) -> Iterator[Record]:
    """A JSON array or JSON lines of {"image": ..., "conversations": [{"from": "human" or "gpt", "value": ...}]}, or in the
    words of other trainers {"images": [...], "messages": [{"role": "user" or "assistant", "content": ...}]}."""
    for value in stream_json(file):
        if isinstance(value, ValueError):
            yield malformed(str(value))
        elif not isinstance(value, dict) or not isinstance(
            first_of(value, "conversations", "messages"), list
        ):
            yield malformed(f"no list of conversations: {json.dumps(value)[:200]}")
        else:
            yield llava_record(value)


def first_of(value: dict[str, Any], *names: str) -> Any:
    """What stands under the first of the names that is there."""
    return next((value[name] for name in names if value.get(name) is not None), None)


def llava_record(value: dict[str, Any]) -> Record:
    images = first_of(value, "image", "images") or []
    names = [images] if isinstance(images, str) else images
    messages = first_of(value, "conversations", "messages")
    well_formed = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not well_formed or not all(isinstance(message, dict) for message in messages):
        return malformed(json.dumps(value)[:200])
    said = [(str(first_of(each, "from", "role")).lower(), words_of(each)) for each in messages]
    turns, problems = pair_up(said)
    marks = sum(str(text).count("<image>") for speaker, text in said if speaker in ASKS)
    if names and max(len(names), marks) > 1:
        problems.append(
            Problem("more than one picture", f"{max(len(names), marks)}, only {names[0]} is used")
        )
    return Record(names=tuple(names[:1]), turns=tuple(turns), ordered=True, problems=tuple(problems))


def words_of(message: dict[str, Any]) -> Any:
    """A message's text; of one in parts, the texts among them, with a mark for each picture."""
    content = first_of(message, "value", "content")
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return content
    return "\n".join(
        str(part.get("text", "")) if part.get("type") == "text" else f"<{part.get('type')}>"
        for part in content
    )


def pair_up(messages: list[tuple[str, Any]]) -> tuple[list[tuple[Any, Any]], list[Problem]]:
    """Messages by their speakers -> answered turns, and what is left over."""
    turns: list[tuple[Any, Any]] = []
    problems: list[Problem] = []
    waiting: list[Any] = []
    for speaker, text in messages:
        if speaker in ASKS:
            problems += [Problem("question without an answer", str(question)) for question in waiting]
            waiting = [without_mark(text)]
        elif speaker in ANSWERS and waiting:
            turns.append((waiting.pop(), text))
        elif speaker == "system":
            problems.append(Problem(SYSTEM, str(text)))
        else:
            known = speaker in ANSWERS
            reason = (
                "answer without a question" if known else f"speaker that is none of {', '.join(SPEAKERS)}"
            )
            problems.append(Problem(reason, f"{speaker}: {text}"))
    return turns, problems + [Problem("question without an answer", str(question)) for question in waiting]


def without_mark(text: Any) -> Any:
    """Take <image> out; a line break beside it stays one where there is text on both sides."""
    if not isinstance(text, str):
        return text
    return IMAGE.sub(lambda mark: "\n" if "\n" in mark.group() else " ", text).strip()


def stream_json(file: Path) -> Iterator[Any]:
    """The values of a JSON array or of JSON lines, one by one; a ValueError stands where one is broken."""
    with open_text(file) as text:
        while (first := text.read(1)).isspace():
            pass
        if first == "[":
            yield from stream_array(text)
            return
        text.seek(0)
        for line in iter(lambda: text.readline(MAX_RECORD), ""):
            try:
                if line.strip():
                    yield json.loads(line)
            except (ValueError, RecursionError) as problem:
                yield ValueError(f"{problem}: {line[:200]}")


def stream_array(text: Readable) -> Iterator[Any]:
    """The values after the opening bracket. Behind broken JSON nothing can be told apart, so reading ends there."""
    decoder, buffer, position = json.JSONDecoder(), "", 0
    while True:
        position = SEPARATORS.match(buffer, position).end()  # type: ignore[union-attr]
        if buffer.startswith("]", position):
            return
        try:
            value, end = decoder.raw_decode(buffer, position)
            whole = isinstance(value, dict) or bool(BORDER.match(buffer, end))  # a number could go on
        except (ValueError, RecursionError):
            whole = False
        if whole:
            yield value
            position = end
            continue
        more = text.read(CHUNK)
        if not more or len(buffer) - position > MAX_RECORD:
            yield ValueError(f"the JSON is broken or cut off; unread from here: {buffer[position:][:200]}")
            return
        buffer, position = buffer[position:] + more, 0
