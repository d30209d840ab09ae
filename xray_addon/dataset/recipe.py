"""What decides the items of a dataset: which settings count, and in what two runs differ."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from os import PathLike
from typing import Any, Self

from ..errors import XRayError
from ..files.opening import open_regular
from ..files.plain import Plain
from ..settings.dataset import DatasetSettings
from .cameras import dataset_cameras

# Raised by one whenever the same settings would give other bytes.
FORMAT = 2

# Settings that name a file: what it holds counts, not where it lies.
_FILES = ("poses", "hdri")


@dataclass(frozen=True)
class Recipe(Plain):
    """The settings that count, as a dataset keeps them.

    items : those that decide an item's bytes, of files their SHA-256. gates : those that decide
    whether it is kept.
    """

    items: dict[str, Any]
    gates: dict[str, Any]

    @classmethod
    def of(cls, settings: DatasetSettings) -> Self:
        """The recipe of `settings`. What nothing reads does not count, nor what it is made on.

        Raises XRayError `missing_file`, `unreadable_file` and `bad_transforms` for files that
        count.
        """
        if settings.cameras == "poses":
            dataset_cameras(settings, "")  # says now what is wrong with the file
        parts: dict[str, dict[str, Any]] = {"item": {"format": FORMAT}, "gate": {}, "run": {}}
        for field in fields(settings):
            if settings.is_used(field.name):
                value = getattr(settings, field.name)
                value = file_hash(value) if field.name in _FILES else value
                parts[field.metadata.get("part", "item")][field.name] = value
        return cls(parts["item"], parts["gate"])

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of all that decides the bytes of an item."""
        text = json.dumps(self.items, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def differences(self, known: Recipe, gates: bool = False) -> str:
        """What of `known` is not so here, for people; with `gates` these count too."""
        ours, theirs = self.items, known.items
        if gates:
            ours, theirs = ours | self.gates, theirs | known.gates
        return "; ".join(
            _difference(name, theirs.get(name), ours.get(name))
            for name in sorted({*ours, *theirs})
            if theirs.get(name) != ours.get(name)
        )


def settings_hash(settings: DatasetSettings) -> str:
    """`Recipe.digest` of `settings`; raises as `Recipe.of`."""
    return Recipe.of(settings).digest


def file_hash(path: str | PathLike[str]) -> str:
    """SHA-256 of a file's bytes; raises XRayError `missing_file`, `unreadable_file`."""
    try:
        with open_regular(path) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise XRayError("missing_file", f"There is no file {path}.", "Check the path.") from error
    except OSError as error:
        raise XRayError(
            "unreadable_file", f"{path} cannot be read ({error.strerror}).", "Check the file."
        ) from error


def other_settings(where: str | PathLike[str], differences: str) -> XRayError:
    """What to raise where there is a dataset of other settings."""
    return XRayError(
        "other_settings",
        f"{where} holds what other settings made ({differences}).",
        "Write to another folder, or have it replaced (--replace).",
    )


def _difference(name: str, theirs: Any, ours: Any) -> str:
    if name in _FILES and theirs and ours:
        return f"{name} is another file"
    return f"{name} is {_told(name, theirs)} there and {_told(name, ours)} here"


def _told(name: str, value: Any) -> str:
    if value is None:
        return "not used"
    return "a file" if name in _FILES else str(value)
