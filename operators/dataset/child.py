"""A second Blender that runs a command of this extension and answers in lines of JSON."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...xray_addon.files.json_files import parse_json
from ...xray_addon.files.json_schema import plain
from ..tasks.blender_process import BlenderProcess, extension_command

STOP_SECONDS = 2.0  # to exit before it is killed


class ChildBlender(BlenderProcess):
    """The process; use it in a `with`, which ends it.

    arguments : of ``blender -c xray``. log : the file to which all other output is appended.
    Raises XRayError `no_blender`, `cannot_write`.
    """

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        super().__init__(extension_command(arguments), log, piped=True)
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._heard = time.monotonic()
        self._busy = self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

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

    def stop(self, grace: float = STOP_SECONDS) -> None:
        """End the process: at once if it has not answered all lines, else in an orderly way."""
        self.end_input()
        if self._busy and not self._ended:
            self._process.terminate()
        super().stop(grace)
        self._reader.join(STOP_SECONDS)

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
