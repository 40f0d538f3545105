"""What a run's folder is trained with: the same command goes on, another one is told what differs.

The settings are written before anything is trained. Only those are in it that change what is learned, and the data by
the digest of their rows, so that a folder may move and a batch may be divided.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import PartialState

from vlm.errors import UserError
from vlm.whole_files import write_json

SETTINGS = "settings.json"
TOLD = 6  # differences in a message
MISSING = "not set"
MARKS = ("checkpoint-*", "*/checkpoint-*", "*/config.yaml", "tags.json")  # what only a run leaves


class Difference(NamedTuple):
    name: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.name} was {_short(self.before)} and is {_short(self.now)}"


def claim_folder(
    output: Path,
    settings: Mapping[str, Any],
    remedy: str,
    longer: Collection[str] = (),
    done: int = 0,
) -> list[int]:
    """Write down that `output` is trained with `settings`. Raises UserError where it holds a run with others, naming what
    differs and then `remedy`.

    `longer` are settings that may have grown: the run is extended at `done` steps, and all such places are returned. A
    length that it had not reached, and is to be reached now, is such a place as well."""
    file = output / SETTINGS
    known = _read(file) if file.is_file() else None
    if known is None and any(any(output.glob(mark)) for mark in MARKS):
        raise UserError(
            f"{output} holds a run that does not say what it was trained with. Give another --output."
        )
    known = known or {"settings": dict(settings), "extended_at": []}
    found = differences(known["settings"], settings)
    refused = [each for each in found if each.name not in longer]
    if refused and all(is_less(each) for each in refused) and known["extended_at"]:
        told_more = " or ".join(str(each.before) for each in refused)
        raise UserError(f"{output} was extended: {told(refused)}. Give --extend {told_more} again to go on.")
    if refused:
        raise UserError(f"{output} holds a run with other settings: {told(refused)}. {remedy}")
    for each in found:
        if not each.now > each.before:
            raise UserError(f"{output} was extended no further: {each}. Give a larger --extend.")
    is_news = found or (longer and not known["extended_at"])
    extended = [*known["extended_at"], done] if is_news else known["extended_at"]
    if PartialState().is_main_process:  # the partial file has one name in all processes
        write_json({"settings": settings, "extended_at": extended}, file)
    return extended


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """Settings that are not the same, by their dotted names."""
    old, new = dict(_flat(before)), dict(_flat(now))
    return [
        Difference(name, old.get(name, MISSING), new.get(name, MISSING))
        for name in {**old, **new}
        if old.get(name, MISSING) != new.get(name, MISSING)
    ]


def is_less(found: Difference) -> bool:
    """Whether it is how long a run trains, and less than before."""
    length = found.name.rpartition(".")[2] in ("max_steps", "epochs")
    return (
        length and isinstance(found.now, int) and isinstance(found.before, int) and found.now < found.before
    )


def told(found: Collection[Difference]) -> str:
    first = "; ".join(str(each) for each in list(found)[:TOLD])
    return first + (f"; and {len(found) - TOLD} more" if len(found) > TOLD else "")


def _flat(values: Any, name: str = "") -> Iterable[tuple[str, Any]]:
    """Nested mappings and lists -> dotted names and plain values."""
    if isinstance(values, Mapping):
        items: Iterable[tuple[Any, Any]] = values.items()
    elif isinstance(values, list | tuple):
        items = enumerate(values, 1)
    else:
        yield name, values
        return
    for key, value in items:
        yield from _flat(value, f"{name}.{key}" if name else str(key))


def _short(value: Any) -> str:
    return str(value)[:60]


def _read(file: Path) -> dict[str, Any]:
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        return {"settings": dict(known["settings"]), "extended_at": list(known["extended_at"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} cannot be read ({error}), so that nobody knows what the run was trained with. "
            "Give another --output."
        ) from error
