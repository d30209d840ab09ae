"""The base class of all settings: checks values and converts to and from plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field, fields
from typing import Any, Self

from ..errors import XRayError


def setting(default: Any, help: str, **limits: Any) -> Any:
    """A field of a settings dataclass, with the help text and limits for panels and command lines.

    limits : `min` and `max` of a number; `choices` of a text, as names with descriptions; `labels`
        of choices, if not the name in title case; `label` of the setting, likewise; `path=True`
        for a file name; `unit` of a number: "degrees", "metres", "percent" (0 to 100), "pixels" or
        "factor" (a share of 1); `on`, if 0 means off: the value after switching it on; `only`: the
        name of another setting, and its values for which this setting is used.
    """
    if "choices" in limits and not isinstance(limits["choices"], Mapping):
        limits["choices"] = dict.fromkeys(limits["choices"], "")
    return field(default=default, metadata={"help": help, **limits})


class Settings:
    """Base class of settings dataclasses: checks values and converts to and from plain data."""

    def __post_init__(self) -> None:
        for item in fields(self):  # type: ignore[arg-type]
            value, meta = getattr(self, item.name), item.metadata
            kind = type(item.default)
            if kind is float and type(value) is int:
                value = float(value)
                setattr(self, item.name, value)
            if type(value) is not kind:
                raise self._bad(item.name, f"must be {kind.__name__}, got {value!r}")
            if "choices" in meta and value not in meta["choices"]:
                raise self._bad(
                    item.name, f"must be one of {tuple(meta['choices'])}, got {value!r}"
                )
            if "min" in meta and not meta["min"] <= value <= meta["max"]:
                raise self._bad(
                    item.name, f"must lie between {meta['min']} and {meta['max']}, got {value}"
                )

    def is_used(self, name: str) -> bool:
        """Whether the setting `name` is used, given the values of the others."""
        return self.counts(name, self)

    @classmethod
    def counts(cls, name: str, values: Any) -> bool:
        """`is_used` for any object with the settings as attributes, e.g. a property group."""
        only = cls.__dataclass_fields__[name].metadata.get("only")  # type: ignore[attr-defined]
        return only is None or (cls.counts(only[0], values) and getattr(values, only[0]) in only[1])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)  # type: ignore[call-overload]

    def to_arguments(self) -> list[str]:
        """The command line options for these settings, except defaults."""
        options = []
        for item in fields(self):  # type: ignore[arg-type]
            value, name = getattr(self, item.name), item.name.replace("_", "-")
            if value == item.default:
                continue
            if isinstance(value, bool):
                options.append(f"--{name}" if value else f"--no-{name}")
            else:
                options.append(f"--{name}={value}")
        return options

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises XRayError `bad_settings` for unknown names."""
        known = {item.name for item in fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(data) - known)
        if unknown:
            raise cls._bad(unknown[0], "is not a setting")
        return cls(**data)

    @classmethod
    def _bad(cls, name: str, reason: str) -> XRayError:
        return XRayError("bad_settings", f"{name} {reason}.", "Correct the setting and try again.")
