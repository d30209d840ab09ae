"""Conversion between dataclasses and plain data."""

from __future__ import annotations

import types
from dataclasses import asdict, fields
from typing import Any, Self, Union, get_args, get_origin, get_type_hints


class Plain:
    """Conversion to and from plain data, for dataclasses with plain fields."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises ValueError for invalid values, also of a wrong type."""
        hints = get_type_hints(cls)
        known = {item.name: hints[item.name] for item in fields(cls)}  # type: ignore[arg-type]
        try:
            values = {name: value for name, value in data.items() if name in known}
            for name, value in values.items():
                if not _fits(value, known[name]):
                    raise ValueError(f"{name} is {value!r:.80}, which is no {known[name]}")
            return cls(**values)
        except (TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"this is no {cls.__name__}: {error}") from error


def _fits(value: Any, hint: Any) -> bool:
    """Whether `value` is of type `hint`; an int is accepted as a float."""
    if hint is Any:
        return True
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is list:
        return isinstance(value, list) and all(_fits(each, inner[0]) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            _fits(key, inner[0]) and _fits(each, inner[1]) for key, each in value.items()
        )
    if hint is float:
        return type(value) in (int, float)
    return type(value) is hint
