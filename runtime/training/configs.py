"""The settings of a training, from a JSON file to their dataclass."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from xray_addon.errors import XRayError
from xray_addon.files.json_files import read_json
from xray_addon.files.json_schema import plain, table_of

LARGEST = 1 << 20  # bytes

Config = TypeVar("Config")


def read_config(kind: type[Config], path: Path, example: str) -> Config:
    """The dataclass `kind`, all of whose fields have defaults, from a JSON file.

    example : a file that the error points to. Raises XRayError `bad_config` for what cannot be
    read, names that `kind` lacks, values of other types than the defaults', and `ValueError`s and
    `TypeError`s of `kind` itself.
    """
    try:
        values = read_json(path, table_of(plain), largest=LARGEST)
        defaults = kind()
        unknown = sorted(set(values) - {item.name for item in fields(kind)})  # type: ignore[arg-type]
        if unknown:
            raise ValueError(f"unknown names {unknown}")
        return kind(**{k: _typed(k, v, getattr(defaults, k)) for k, v in values.items()})
    except (OSError, ValueError, TypeError) as error:
        raise XRayError(
            "bad_config",
            f"{path} is not a training configuration ({error}).",
            f"See {example} for an example.",
        ) from error


def _typed(name: str, value: Any, default: Any) -> Any:
    """`value` in the type of `default`: JSON has neither tuples nor a difference of 1 and 1.0."""
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        raise ValueError(f"{name} must be {type(default).__name__}, got {value!r}")
    return value
