"""Where Blender's own prints go, which Python's `redirect_stdout` does not know of."""

from __future__ import annotations

import ctypes
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import bpy


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


@contextmanager
def quietly() -> Iterator[None]:
    """Without what Blender prints of its work where it has no window: dozens of lines a picture."""
    if not bpy.app.background:
        yield
        return
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nothing,
        output_to(nothing.fileno()),
        redirect_stdout(nothing),  # an operator's reports
    ):
        yield


@contextmanager
def captured_output(warnings: list[str]) -> Iterator[None]:
    """Keep what importers print to themselves; adds the lines that warn to `warnings`."""
    if not bpy.app.background:
        yield
        return
    output = io.StringIO()  # not a file: what importers keep hold of may still write to it later
    with tempfile.TemporaryFile() as stream:
        try:
            with output_to(stream.fileno()), redirect_stdout(output), redirect_stderr(output):
                yield
        finally:
            stream.seek(0)
            text = output.getvalue() + stream.read().decode(errors="replace")
            warnings += [
                line.strip()
                for line in text.splitlines()
                if "warning" in line.lower() or "error" in line.lower()
            ]


def _flush() -> None:
    sys.stdout.flush()
    # Blender's own prints wait in C's buffer.
    ctypes.CDLL("ucrtbase" if os.name == "nt" else None).fflush(None)
