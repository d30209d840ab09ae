"""The one exception that crosses module and process borders, and what it ends a command with."""

from __future__ import annotations

from typing import Any

# Exit codes of every command line.
DONE, SOME_FAILED, USAGE, RUNTIME_FAILED, CANCELLED = 0, 1, 2, 3, 130

# What was typed is wrong.
_USAGE_CODES = frozenset(
    {
        "bad_config",
        "bad_environment",
        "bad_manifest",
        "bad_settings",
        "bad_transforms",
        "missing_file",
        "no_data",
        "no_folder",
        "no_meshes",
        "no_numba",
        "other_settings",
        "unknown_format",
        "unknown_generator",
        "unsafe_dataset",
    }
)
# This input cannot be done; another could.
_ITEM_CODES = frozenset({"no_cutout", "no_object", "nothing_predicted", "unreadable_image"})


class XRayError(Exception):
    """What happened and what to do about it, written for the person who sees it.

    Parameters
    ----------
    code : short machine name, stable across versions, e.g. ``"unreadable_image"``.
    message : what happened.
    remedy : what to do about it; may be empty.
    log : path of the log file that holds the details, if there is one.
    """

    def __init__(self, code: str, message: str, remedy: str = "", log: str = "") -> None:
        super().__init__(code, message, remedy, log)
        self.code = code
        self.message = message
        self.remedy = remedy
        self.log = log

    def __str__(self) -> str:
        parts = [self.message, self.remedy, f"Log: {self.log}" if self.log else ""]
        return " ".join(part for part in parts if part)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "code": self.code,
            "message": self.message,
            "remedy": self.remedy,
            "log": self.log,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> XRayError:
        """The inverse of `to_dict`; missing keys become empty."""
        return cls(
            str(data.get("code", "internal")),
            str(data.get("message", "Unknown error.")),
            str(data.get("remedy", "")),
            str(data.get("log", "")),
        )


def exit_code(error: XRayError, otherwise: int = RUNTIME_FAILED) -> int:
    """What a command that ends with `error` exits with; `otherwise` where the code says nothing."""
    if error.code == "cancelled":
        return CANCELLED
    if error.code in _USAGE_CODES:
        return USAGE
    return SOME_FAILED if error.code in _ITEM_CODES else otherwise
