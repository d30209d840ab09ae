"""The item that a run is at, noted where the next run finds it if this one dies.

A file can abort the whole process, as some PLY files do Blender's importer. The note is written
before the file is opened and removed after the item has ended. Beside it lies a file into which the
interpreter writes when it crashes (`faulthandler`), and which stays empty where somebody ended the
process: that is not the item's fault.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import sys
from pathlib import Path
from typing import Any

from ..errors import XRayError
from .rows import REFUSED_ROW, read_row

NOTE, TRACE = "in-flight.json", "crash.txt"
# Ends without a trace after which an item is blamed as well: what takes all memory is killed so.
MOST_ENDS = 5


class InFlight:
    """A note in the private folder `work` that an item with the row `row` is being made."""

    def __init__(self, work: Path, row: dict[str, Any]) -> None:
        self._note, self._trace = work / NOTE, work / TRACE
        said = {"status": "rejected", "code": "crashed", "reason": ""}
        self._note.write_text(json.dumps({**row, **said}), encoding="utf-8")
        self._stream = self._trace.open("wb")
        self._others = faulthandler.is_enabled()
        faulthandler.enable(self._stream, all_threads=False)

    def landed(self) -> None:
        """The item has ended, whichever way."""
        faulthandler.disable()
        if self._others and sys.__stderr__ is not None:
            with contextlib.suppress(OSError, ValueError):  # there is no such stream in a window
                faulthandler.enable(sys.__stderr__)
        self._stream.close()
        for path in (self._note, self._trace):
            path.unlink(missing_ok=True)


def left_in_flight(work: Path) -> tuple[dict[str, Any], bool] | None:
    """The row of the item that the run with the folder `work` died at, and whether it crashed."""
    row = read_row(work / NOTE, REFUSED_ROW, named=False)
    if row is None:
        return None
    trace = work / TRACE
    return row, not trace.is_symlink() and trace.is_file() and os.path.getsize(trace) > 0


def crashed(row: dict[str, Any], ends: int) -> XRayError:
    """Why an item is refused. ends : how often a run has ended at it without a trace."""
    how = f"ended {ends} times" if ends else "crashed"
    return XRayError(
        "crashed",
        f"Blender {how} while it captured {row['source']}.",
        f"Repair the file or leave it out; without refused/{row['uid']}.json it is tried again.",
    )
