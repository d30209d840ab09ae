"""The setting that all commands that capture objects share."""

from __future__ import annotations

from typing import Any

from .base import setting


def visible_in_setting() -> Any:
    """Which objects are captured: those in a render, or those in the viewport."""
    return setting(
        "render",
        "Which objects count",
        choices={
            "render": "Those that a render's camera sees",
            "viewport": "Those that the viewport shows as surfaces",
        },
    )
