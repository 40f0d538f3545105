"""A conversation -> plain data that a browser keeps or a person exports, and back.

What comes back was in other hands: every value is checked, files are taken only where `received` knows them, and a record
that does not fit is refused whole.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from vlm.chat.answer import Answer, Settings
from vlm.chat.conversation import FULL, MAX_KEPT, MAX_QUESTIONS, Conversation, Exchange, Voted
from vlm.errors import UserError

Record = dict[str, Any]

MAX_CHARACTERS = 100_000  # of one text
MAX_RECORD = 4_000_000  # characters of a whole conversation
ROOM = 100_000  # of one more question, with its instructions and its answer
UNREADABLE = "This conversation cannot be read: it was not written by this page, or was changed since."
LOST = "lost/"  # before the name of a file that is no longer there


def to_record(conversation: Conversation) -> Record:
    """Every exchange once, without what only matters while its answer grows, and the ways through them by their numbers."""
    numbers: dict[int, int] = {}
    exchanges: list[Exchange] = []
    for exchange in (each for way in conversation.ways for each in way):
        if id(exchange) not in numbers:
            numbers[id(exchange)] = len(exchanges)
            exchanges.append(exchange)
    return {
        "key": conversation.key,
        "exchanges": [dataclasses.asdict(dataclasses.replace(each, begun=None)) for each in exchanges],
        "ways": [[numbers[id(each)] for each in way] for way in conversation.ways],
        "shown": conversation.shown,
    }


def check_room(conversation: Conversation) -> None:
    """Raises UserError where its record could not be opened again with one more question."""
    if _length(to_record(conversation)) + ROOM > MAX_RECORD:
        raise UserError(FULL)


def from_record(record: Any, received: Callable[[str], str | None]) -> Conversation:
    """The conversation as it was. `received`: a file's path as the record has it -> where it is now, None if it is lost.
    Raises UserError."""
    try:
        _require(_length(record) <= MAX_RECORD)
        exchanges = [_exchange(each, received) for each in record["exchanges"][: MAX_KEPT + 1]]
        ways = [[exchanges[_index(number)] for number in way] for way in record["ways"]]
        _require(len(exchanges) <= MAX_KEPT and 0 < len(ways) <= MAX_KEPT)
        _require(sum(map(len, ways)) <= MAX_KEPT and max(map(len, ways)) <= MAX_QUESTIONS)
        conversation = Conversation()
        conversation.ways, conversation.shown = ways, _index(record["shown"])
        conversation.key = _checked(record["key"], str)
        _require(conversation.shown < len(ways) and len(conversation.key) <= 64)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, UserError) as problem:
        raise UserError(UNREADABLE) from problem
    return conversation


def _length(record: Any) -> int:
    return len(json.dumps(record, ensure_ascii=False))


def _exchange(entry: Mapping[str, Any], received: Callable[[str], str | None]) -> Exchange:
    recording = entry["recording"] and received(_checked(entry["recording"], str))
    return Exchange(
        question=_checked(entry["question"], str),
        pictures=tuple(_file(_checked(path, str), received) for path in entry["pictures"]),
        recording=recording or None,
        settings=_read(Settings, entry["settings"]) if entry["settings"] else None,
        answer=_read(Answer, entry["answer"]) if entry["answer"] else None,
        voted=_read(Voted, entry["voted"]) if entry.get("voted") else None,
    )


def _file(path: str, received: Callable[[str], str | None]) -> str:
    return received(path) or LOST + path.replace("\\", "/").rsplit("/", 1)[-1][:200]


def _read(kind: Any, entry: Mapping[str, Any]) -> Any:
    """A dataclass of plain values from what JSON made of it. What it does not know is left out, as from a newer page."""
    hints = typing.get_type_hints(kind)
    return kind(**{name: _checked(value, hints[name]) for name, value in entry.items() if name in hints})


def _checked(value: Any, hint: Any) -> Any:
    """`value`, if it is what the annotation says: a plain type, a choice, an optional one, or numbers by their names."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        _require(value in arguments)
    elif origin in (typing.Union, types.UnionType):
        return None if value is None else _checked(value, arguments[0])
    elif origin is dict:
        return {_checked(key, str): _checked(number, float) for key, number in value.items()}
    elif hint is float:
        _require(isinstance(value, int | float) and not isinstance(value, bool))
    elif hint is int:
        _require(isinstance(value, int) and not isinstance(value, bool))
    else:
        _require(isinstance(value, hint))
    _require(not isinstance(value, str) or len(value) <= MAX_CHARACTERS)
    return value


def _index(value: Any) -> int:
    _require(isinstance(value, int) and value >= 0)
    return value


def _require(right: bool) -> None:
    if not right:
        raise ValueError("the record does not fit")
