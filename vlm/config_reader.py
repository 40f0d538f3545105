"""Plain values, as YAML has them <-> frozen dataclasses.

An unknown key is an error that names the valid ones, so that a typing mistake never trains or serves another model than the
one that was meant.
"""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from vlm.errors import UserError, not_permitted

Config = TypeVar("Config")


@dataclass(frozen=True)
class PartConfig:
    """Which of several parts stands in a place, and its settings as they are written. In YAML both are one mapping, such
    as `{kind: mlp, hidden: 1024}`. The part's own dataclass reads the settings (`read_settings`)."""

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)


def from_dict(kind: type[Config], values: dict[str, Any], where: str) -> Config:
    """Build a (nested) dataclass from plain values; `where` names the place in error messages."""
    hints = get_type_hints(kind)
    if not isinstance(values, dict):
        raise UserError(f"{where} must be a mapping with the keys {', '.join(hints)}.")
    unknown = sorted(map(str, set(values) - set(hints)))  # YAML reads `on` and `1` as something else
    if unknown:
        raise UserError(f"{where} has no key {', '.join(unknown)}. Valid keys: {', '.join(hints) or 'none'}.")
    built = {}
    for name, value in values.items():
        hint = hints[name]
        if hint is PartConfig:
            value = _part(value, f"{where}.{name}")
        elif dataclasses.is_dataclass(hint):
            value = from_dict(hint, value, f"{where}.{name}")  # type: ignore[arg-type]
        elif isinstance(value, list):
            (item, *_) = get_args(hint) or (None,)
            _check_entries(value, item, f"{where}.{name}")
            value = tuple(
                from_dict(item, entry, f"{where}.{name}") if dataclasses.is_dataclass(item) else entry  # type: ignore
                for entry in value
            )
        _check_kind(value, hint, f"{where}.{name}")
        built[name] = value
    return kind(**built)


def load_preset(
    kind: type[Config],
    preset: str,
    folder: Path,
    noun: str,
    of: str = "",
    overrides: Mapping[str, object] | None = None,
) -> Config:
    """A preset's name in `folder`, or the path of a YAML file of one's own, with overrides (None: not given). A message
    calls it by its `noun`, its name and what it is a preset `of`."""
    path = Path(preset) if preset.endswith((".yaml", ".yml")) else folder / f"{preset}.yaml"
    if not os.path.isfile(path):  # False, and no error, where the name is too long
        names = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise UserError(
            f"There is no {noun} {preset!r}{of}. Shipped presets: {names}; or give the path of a YAML file."
        )
    config = from_dict(kind, read_yaml(path), path.name)
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    return dataclasses.replace(config, **given)  # type: ignore[type-var]


def _check_entries(values: list[Any], item: Any, where: str) -> None:
    """Raise UserError where a list of words or of mappings holds something else."""
    if dataclasses.is_dataclass(item):
        other = next((value for value in values if not isinstance(value, dict)), None)
        if other is not None:
            keys = ", ".join(each.name for each in dataclasses.fields(item))
            raise UserError(f"{where} must be a list of mappings with the keys {keys}, and has {other!r}.")
    if item is not str:
        for value in values:
            _check_kind(value, item, f"Each of {where}")
        return
    for value in values:
        if isinstance(value, dict | list):
            named = value.get("name", "one") if isinstance(value, dict) else "one"
            raise UserError(f"{where} must be a list of words, such as [{named}, another], and has {value}.")
        if not isinstance(value, str):
            raise UserError(
                f"{where} must be words, and has {values}. Quote those that YAML reads as something else: "
                '"yes", "no", "on", "off".'
            )


def _part(values: Any, where: str) -> PartConfig:
    if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
        raise UserError(
            f"{where} must be a mapping with a kind and that kind's settings, such as {{kind: mlp}}."
        )
    return PartConfig(values["kind"], {key: value for key, value in values.items() if key != "kind"})


def read_settings(part: PartConfig, kinds: Mapping[str, type[Config]], place: str) -> Config:
    """A part's settings, as its kind's dataclass has them. Raises UserError that names the valid kinds or keys."""
    if part.kind not in kinds:
        raise UserError(f"There is no {place} {part.kind!r}. Valid: {', '.join(kinds)}.")
    return from_dict(kinds[part.kind], part.settings, f"{place} {part.kind}")


KINDS: dict[type, tuple[tuple[type, ...], str]] = {  # of a plain value: what YAML may hold, and its name
    str: ((str,), "a text"),
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number such as 1.0e-3"),
    tuple: ((tuple,), "a list"),
}


def _check_kind(value: Any, hint: Any, where: str) -> None:
    """Raise UserError where a value is of another kind than its field."""
    optional = type(None) in get_args(hint)
    plain = next((kind for kind in get_args(hint) if kind is not type(None)), hint) if optional else hint
    kinds, told = KINDS.get(get_origin(plain) or plain, ((), ""))
    if not kinds or (optional and value is None):
        return
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise UserError(f"{where} must be {told}, and is {value!r}.")


def to_dict(config: Any) -> dict[str, Any]:
    """Plain values of a configuration, ready for YAML or JSON (tuples become lists)."""

    def plain(value: Any) -> Any:
        if isinstance(value, PartConfig):
            return {"kind": value.kind} | plain(value.settings)
        if dataclasses.is_dataclass(value):
            return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    return plain(config)


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except PermissionError as error:
        raise UserError(not_permitted(error)) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8. Save it again as UTF-8.") from error
    except (OSError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} could not be read as YAML: {reason}") from error
