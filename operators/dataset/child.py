"""A second Blender that runs a command of this extension and answers in lines of JSON."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import bpy

from ...xray_addon.dataset.store import writing
from ...xray_addon.dataset.worker import blender_command
from ...xray_addon.errors import XRayError
from ...xray_addon.files.json_files import parse_json
from ...xray_addon.files.json_schema import plain
from ...xray_addon.files.opening import append_regular
from ...xray_addon.process.installer import NO_WINDOW
from ..interface.registration import extension_package

STOP_SECONDS = 2.0  # to exit before it is killed


class ChildBlender:
    """The process; use it in a `with`, which ends it.

    arguments : of ``blender -c xray``. log : the file to which all other output is appended.
    Raises XRayError `no_blender`, `cannot_write`.
    """

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        with writing(log.parent):
            stream = append_regular(log)
        # What a killed process leaves there is removed with it.
        self._temporary = tempfile.TemporaryDirectory(prefix="xray-", ignore_cleanup_errors=True)
        places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), self._temporary.name)
        try:
            with stream:
                self._process = subprocess.Popen(
                    command(arguments),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stream,
                    encoding="utf-8",
                    errors="replace",  # add-ons may print in any encoding
                    env=os.environ | places,
                    # Only this Blender receives Ctrl-C; it then ends the second one.
                    start_new_session=os.name != "nt",
                    creationflags=NO_WINDOW,
                )
        except OSError as error:
            self._temporary.cleanup()
            raise XRayError(
                "no_blender", f"A second Blender cannot be started ({error}).", "", str(log)
            ) from error
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._heard = time.monotonic()
        self._busy = self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> ChildBlender:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def is_alive(self) -> bool:
        """Whether more answers may come."""
        return not self._ended

    @property
    def silent_for(self) -> float:
        """Seconds since it was last given a line, or last answered one."""
        return time.monotonic() - self._heard

    def send(self, line: dict[str, Any]) -> None:
        """Give it a line. If the process has died, `answer` detects it."""
        assert self._process.stdin is not None
        self._busy, self._heard = True, time.monotonic()
        with suppress(OSError):
            self._process.stdin.write(json.dumps(line) + "\n")
            self._process.stdin.flush()

    def answer(self) -> dict[str, Any] | None:
        """The next line that it answered, or None if there is none yet."""
        with suppress(queue.Empty):
            line = self._answers.get_nowait()
            self._ended = line is None
            return line
        return None

    def mark_idle(self) -> None:
        """Note that it has answered all lines, so that `stop` waits for its orderly end."""
        self._busy = False

    def end_input(self) -> None:
        """Give it no more lines, at whose end it ends."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    @property
    def exit_code(self) -> int | None:
        """Of the process, after `stop`."""
        return self._process.returncode

    def stop(self) -> None:
        """End the process."""
        self.end_input()
        if self._busy and not self._ended:
            self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(STOP_SECONDS)
        self._temporary.cleanup()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                with suppress(ValueError):  # not JSON: Blender's own output
                    answer = parse_json(line, plain)
                    if isinstance(answer, dict):
                        self._heard = time.monotonic()
                        self._answers.put(answer)
        self._answers.put(None)


def command(arguments: Sequence[str]) -> list[str]:
    """The command line of a second Blender. As a Python module, Blender has no executable."""
    blender = bpy.app.binary_path or sys.executable
    return blender_command(blender, arguments, extension_package())
