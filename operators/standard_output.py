"""Where Blender's own prints go, which Python's `redirect_stdout` does not know of."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def output_to(target: int) -> Iterator[int]:
    """Send all that goes to standard output to the file descriptor `target` instead.

    Yields a file descriptor of what standard output was.
    """
    _flush()
    kept = os.dup(1)
    try:
        os.dup2(target, 1)
        yield kept
    finally:
        _flush()
        os.dup2(kept, 1)
        os.close(kept)


def _flush() -> None:
    sys.stdout.flush()
    # Blender's own prints wait in C's buffer.
    ctypes.CDLL("ucrtbase" if os.name == "nt" else None).fflush(None)
