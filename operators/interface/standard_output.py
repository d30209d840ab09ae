"""Redirects Blender's own output, which Python's `redirect_stdout` does not catch."""

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
    """Redirect standard output to the file descriptor `target`.

    Yields a file descriptor of the original standard output.
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
    """Discard Blender's output; without a window it prints dozens of lines per picture."""
    if not bpy.app.background:
        yield
        return
    said = io.StringIO()  # not a file, because exporters may keep it and write to it later
    with (
        Path(os.devnull).open("wb") as nothing,
        output_to(nothing.fileno()),
        redirect_stdout(said),  # an operator's reports
        redirect_stderr(said),  # an exporter's log
    ):
        yield


@contextmanager
def captured_output(warnings: list[str]) -> Iterator[None]:
    """Suppress the output of importers, and append its warnings to `warnings`."""
    if not bpy.app.background:
        yield
        return
    output = io.StringIO()  # not a file, because importers may keep it and write to it later
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
    # Blender's output is buffered by C's stdio.
    ctypes.CDLL("ucrtbase" if os.name == "nt" else None).fflush(None)
