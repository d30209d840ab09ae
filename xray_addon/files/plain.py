"""Plain data in and out of dataclasses."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any, Self


class Plain:
    """Plain data in and out, for dataclasses of plain fields."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; raises ValueError for what does not fit."""
        known = {item.name for item in fields(cls)}  # type: ignore[arg-type]
        try:
            return cls(**{name: value for name, value in data.items() if name in known})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"this is no {cls.__name__}: {error}") from error
