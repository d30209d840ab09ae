"""How long work reports where it is, and how it is told to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import XRayError


class State(StrEnum):
    """Where a piece of long work is; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Progress:
    """One report: `step` of `of` (0: unknown) are done in `stage`; `message` is for people.

    preview : a picture of what is being made, (H, W, 4) uint8, straight alpha; mostly None.
    """

    stage: str
    step: int = 0
    of: int = 0
    message: str = ""
    preview: NDArray[np.uint8] | None = field(default=None, compare=False, repr=False)

    @property
    def fraction(self) -> float:
        """Done share of the stage, 0..1; 0 where it is unknown."""
        return min(self.step / self.of, 1.0) if self.of else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the picture."""
        return {
            "stage": self.stage,
            "step": self.step,
            "of": self.of,
            "message": self.message,
        }


# Called often by long work, on its own thread. It raises `Cancelled` to stop the work.
ProgressCallback = Callable[[Progress], None]


class Cancelled(XRayError):
    """Raised out of long work that was asked to stop; nothing half-done is left behind."""

    def __init__(self, message: str = "Cancelled.") -> None:
        super().__init__("cancelled", message)


def ignore_progress(_: Progress) -> None:
    """A `ProgressCallback` for callers that do not care."""
