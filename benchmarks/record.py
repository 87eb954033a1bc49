"""Records: dataclasses that are written as JSON objects and read back, by their fields' names and types."""

import types
import typing
from dataclasses import MISSING, field, fields
from typing import Any, TypeVar

T = TypeVar("T", bound="Record")


def optional() -> Any:
    """A field that is left out of the JSON while it is None."""
    return field(default=None, metadata={"optional": True})


class Record:
    """A dataclass that is written as a JSON object, by its fields' names."""

    def to_json(self) -> dict[str, Any]:
        """Plain data: dicts, lists, numbers, strings, None."""
        values = {f: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {f.name: _plain(v) for f, v in values.items() if v is not None or not f.metadata.get("optional")}

    @classmethod
    def from_json(cls: type[T], data: dict[str, Any]) -> T:
        """The record of plain data. Unknown keys are dropped; a missing key is its field's default, else empty."""
        kinds = typing.get_type_hints(cls)
        values = {}
        for f in fields(cls):  # type: ignore[arg-type]
            if f.name in data:
                values[f.name] = _typed(kinds[f.name], data[f.name])
            elif f.default is MISSING and f.default_factory is MISSING:
                values[f.name] = _empty(kinds[f.name])
        return cls(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _typed(kind: Any, value: Any) -> Any:
    """Plain data as a type hint wants it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _typed(arguments[0], value)
    if origin is list:
        return [_typed(arguments[0], item) for item in value]
    if origin is dict:
        return {key: _typed(arguments[1], item) for key, item in value.items()}
    return kind.from_json(value) if isinstance(kind, type) and issubclass(kind, Record) else value


def _empty(kind: Any) -> Any:
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return None
    origin = typing.get_origin(kind) or kind
    return origin.from_json({}) if isinstance(origin, type) and issubclass(origin, Record) else origin()
