"""Records the current item, so that the next run knows which item a dead run was making.

A file can crash the whole process, as some PLY files do in Blender's importer. The note is written
before the file is opened and removed when the item has ended. In a crash, the interpreter writes
to a second file beside it (`faulthandler`). That file stays empty if somebody ended the process,
which is not the item's fault.
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
# Ends without a crash trace after which the item is blamed too: the system kills a process without
# one if memory runs out.
MOST_ENDS = 5


class InFlight:
    """A note in the private folder `work` that the item of `row` is being made."""

    def __init__(self, work: Path, row: dict[str, Any]) -> None:
        self._note, self._trace = work / NOTE, work / TRACE
        said = {"status": "rejected", "code": "crashed", "reason": ""}
        self._note.write_text(json.dumps({**row, **said}), encoding="utf-8", newline="\n")
        self._stream = self._trace.open("wb")
        self._others = faulthandler.is_enabled()
        faulthandler.enable(self._stream, all_threads=False)

    def landed(self) -> None:
        """Remove the note, because the item has ended."""
        faulthandler.disable()
        if self._others and sys.__stderr__ is not None:
            with contextlib.suppress(OSError, ValueError):  # a GUI may have no such stream
                faulthandler.enable(sys.__stderr__)
        self._stream.close()
        for path in (self._note, self._trace):
            path.unlink(missing_ok=True)


def left_in_flight(work: Path) -> tuple[dict[str, Any], bool] | None:
    """The row of the item that a dead run was making in `work`, and whether it crashed."""
    row = read_row(work / NOTE, REFUSED_ROW, named=False)
    if row is None:
        return None
    trace = work / TRACE
    return row, not trace.is_symlink() and trace.is_file() and os.path.getsize(trace) > 0


def crashed(row: dict[str, Any], ends: int) -> XRayError:
    """Why the item is refused. ends : how many runs ended at it without a crash trace."""
    how = f"ended {ends} times" if ends else "crashed"
    return XRayError(
        "crashed",
        f"Blender {how} while it captured {row['source']}.",
        f"Repair the file or leave it out; without refused/{row['uid']}.json it is tried again.",
    )
