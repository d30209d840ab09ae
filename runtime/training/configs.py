"""The settings of a training, from a JSON file to their dataclass."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from xray_addon.errors import XRayError

Config = TypeVar("Config")


def read_config(kind: type[Config], path: Path, example: str) -> Config:
    """The dataclass `kind`, all of whose fields have defaults, from a JSON file.

    example : a file that the error points to. Raises XRayError `bad_config` for what cannot be
    read, names that `kind` lacks, values of other types than the defaults', and `ValueError`s and
    `TypeError`s of `kind` itself.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it is no JSON object")
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
