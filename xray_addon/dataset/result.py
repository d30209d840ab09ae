"""The result of one item in a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from ..errors import XRayError, error_code
from ..files.plain import Plain

STATUSES = DONE, EXISTS, REJECTED, FAILED = "done", "exists", "rejected", "failed"


@dataclass(frozen=True)
class ItemResult(Plain):
    """The result of one item.

    status : "done"; "exists" if it was already complete; "rejected" by a gate; "failed".
    code, reason : why it was rejected or failed. log : path of the log with the details.
    views, hits, dropped : totals of the item. seconds : the time it took.
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

    @classmethod
    def refused(cls, uid: str, error: XRayError, status: str = FAILED, **more: Any) -> Self:
        """The result of an item that was refused because of `error`. more : other fields."""
        return cls(uid, status, error.code, str(error), **more)


def stop_on(result: ItemResult) -> None:
    """Raise the error in a worker's result if it affects every item."""
    if result.status == FAILED and error_code(result.code).stops:
        raise XRayError(result.code, result.reason)
