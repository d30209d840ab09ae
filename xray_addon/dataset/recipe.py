"""The settings that determine a dataset's items, and the differences between two runs."""

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

# Increased whenever the same settings would give different bytes.
FORMAT = 3

# Settings that name a file. Its contents are compared, not its path.
_FILES = ("poses", "hdri")


@dataclass(frozen=True)
class Recipe(Plain):
    """The relevant settings, as stored in a dataset.

    items : the settings that determine an item's bytes, with files as SHA-256. gates : the settings
    that determine whether the item is kept.
    """

    items: dict[str, Any]
    gates: dict[str, Any]

    @classmethod
    def of(cls, settings: DatasetSettings) -> Self:
        """The recipe of `settings`. Unused settings and the device are ignored.

        Raises XRayError `missing_file`, `unreadable_file` and `bad_transforms` for files in use.
        """
        if settings.cameras == "poses":
            dataset_cameras(settings, "")  # raises now if the file is unusable
        parts: dict[str, dict[str, Any]] = {"item": {"format": FORMAT}, "gate": {}, "run": {}}
        for field in fields(settings):
            if settings.is_used(field.name):
                value = getattr(settings, field.name)
                value = file_hash(value) if field.name in _FILES else value
                parts[field.metadata.get("part", "item")][field.name] = value
        return cls(parts["item"], parts["gate"])

    @property
    def digest(self) -> str:
        """16 hexadecimal digits: the hash of all settings that determine an item's bytes."""
        text = json.dumps(self.items, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def differences(self, known: Recipe, gates: bool = False) -> str:
        """The differences to `known`, for messages. gates : whether to include the gates."""
        ours, theirs = self.items, known.items
        if gates:
            ours, theirs = ours | self.gates, theirs | known.gates
        return "; ".join(
            _difference(name, theirs.get(name), ours.get(name))
            for name in sorted({*ours, *theirs})
            if theirs.get(name) != ours.get(name)
        )


def file_hash(path: str | PathLike[str]) -> str:
    """SHA-256 of a file's bytes. Raises XRayError `missing_file`, `unreadable_file`."""
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
    """The error if a dataset was made with different settings."""
    return XRayError(
        "other_settings",
        f"{where} was made with different settings ({differences}).",
        "Write to another folder, or replace it (--replace).",
    )


def _difference(name: str, theirs: Any, ours: Any) -> str:
    if name in _FILES and theirs and ours:
        return f"{name} is another file"
    return f"{name} is {_described(name, theirs)} there and {_described(name, ours)} here"


def _described(name: str, value: Any) -> str:
    if value is None:
        return "not used"
    return "a file" if name in _FILES else str(value)
