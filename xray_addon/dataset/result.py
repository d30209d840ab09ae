"""How one item of a run ended."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import XRayError
from ..files.plain import Plain

STATUSES = DONE, EXISTS, REJECTED, FAILED = "done", "exists", "rejected", "failed"

# Errors that every other item would meet too: they end a run.
STOPPING = frozenset(
    {
        "cannot_write",
        "no_denoiser",
        "no_device",
        "no_gpu",
        "no_renderer",
        "other_settings",
        "unsafe_dataset",
    }
)


@dataclass(frozen=True)
class Result(Plain):
    """How one item ended.

    status : "done"; "exists", it was complete before; "rejected" by a gate; "failed".
    code, reason : why it was rejected or failed. log : path of the file that says more.
    views, hits, dropped : sums over the item. seconds : what it took.
    """

    uid: str
    status: str
    code: str = ""
    reason: str = ""
    views: int = 0
    hits: int = 0
    dropped: int = 0
    seconds: float = 0.0
    log: str = ""


def stop_on(result: Result) -> None:
    """Raise what a worker's result says where it is one of `STOPPING`."""
    if result.status == FAILED and result.code in STOPPING:
        raise XRayError(result.code, result.reason)
