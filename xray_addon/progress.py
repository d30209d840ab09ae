"""How long work reports its progress, and how it is cancelled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import XRayError


class State(StrEnum):
    """The state of a piece of long work. The last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Progress:
    """A report: `step` of `of` (0: unknown) steps of `stage` are done; `message` is for users.

    preview : a picture of the result so far, (H, W, 4) uint8, straight alpha; usually None.
    """

    stage: str
    step: int = 0
    of: int = 0
    message: str = ""
    preview: NDArray[np.uint8] | None = field(default=None, compare=False, repr=False)

    @property
    def fraction(self) -> float:
        """The completed share of the stage, 0..1; 0 if it is unknown."""
        return min(self.step / self.of, 1.0) if self.of else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the picture."""
        return {
            "stage": self.stage,
            "step": self.step,
            "of": self.of,
            "message": self.message,
        }


# Called often by long work, on its own thread. It may raise `Cancelled` to stop the work.
ProgressCallback = Callable[[Progress], None]


class Cancelled(XRayError):
    """Raised when long work is cancelled. The work leaves nothing incomplete."""

    def __init__(self, message: str = "Cancelled.") -> None:
        super().__init__("cancelled", message)


def ignore_progress(_: Progress) -> None:
    """A `ProgressCallback` that does nothing."""
