"""Converts settings dataclasses to and from command line options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import Field, fields
from typing import Any, TypeVar

from .base import Settings

_T = TypeVar("_T", bound=Settings)


def add_settings(
    parser: argparse._ActionsContainer, cls: type[Settings], skip: Sequence[str] = ()
) -> None:
    """Add an option for each field of a settings dataclass except those in `skip`."""
    for item in fields(cls):  # type: ignore[arg-type]
        if item.name not in skip:
            add_setting(parser, item)


def add_setting(
    parser: argparse._ActionsContainer,
    item: Field[Any],
    choices: Sequence[str] | None = None,
) -> None:
    """Add an option for a field. If it is not given, the namespace has no value for it.

    choices : replace the field's own.
    """
    meanings = item.metadata.get("choices", {})
    described = [f"{name}: {meaning}" for name, meaning in meanings.items() if meaning]
    text = "; ".join([str(item.metadata["help"]), *described])
    options: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
    if not isinstance(item.default, bool):
        choices = choices or list(meanings) or None
        options = {
            "type": type(item.default),
            "choices": choices,
            "metavar": None if choices else item.name[0].upper(),
        }
        text += f" (default: {'none' if item.default == '' else item.default})"
    name = f"--{item.name.replace('_', '-')}"
    text = text.replace("%", "%%")
    parser.add_argument(name, default=argparse.SUPPRESS, help=text, **options)


def settings_from_arguments(cls: type[_T], arguments: argparse.Namespace) -> _T:
    """The settings given by the options of `add_settings`. Raises XRayError `bad_settings`."""
    names = [item.name for item in fields(cls)]  # type: ignore[arg-type]
    return cls(**{name: getattr(arguments, name) for name in names if hasattr(arguments, name)})
