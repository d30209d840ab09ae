"""The one exception that crosses module and process borders."""

from __future__ import annotations

from typing import Any


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
