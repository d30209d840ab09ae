"""Settings dataclasses as options of a command line."""

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
    """An option for each field of a settings dataclass but those in `skip`."""
    for item in fields(cls):  # type: ignore[arg-type]
        if item.name not in skip:
            add_setting(parser, item)


def add_setting(
    parser: argparse._ActionsContainer,
    item: Field[Any],
    help: str = "",
    choices: Sequence[str] | None = None,
) -> None:
    """An option for a field; one that is not given leaves nothing in the namespace.

    help, choices : in place of the field's own.
    """
    text = help or str(item.metadata["help"])
    options: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
    if not isinstance(item.default, bool):
        choices = choices or item.metadata.get("choices")
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
    """The settings that `add_settings`'s options were given; raises XRayError `bad_settings`."""
    names = [item.name for item in fields(cls)]  # type: ignore[arg-type]
    return cls(**{name: getattr(arguments, name) for name in names if hasattr(arguments, name)})
