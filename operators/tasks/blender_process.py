"""A second Blender process, for work that would stop the first one's window."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import bpy

from ...xray_addon.dataset.store import writing
from ...xray_addon.dataset.worker import blender_command
from ...xray_addon.errors import XRayError
from ...xray_addon.files.opening import append_regular
from ...xray_addon.process.installer import NO_WINDOW
from ..interface.registration import extension_package


class BlenderProcess:
    """The process; use it in a `with`, which ends it.

    command : see `script_command` and `extension_command`. log : the file to which its output is
    appended. piped : whether standard input and standard output are pipes, which subclasses use;
    otherwise it has no input.

    Raises XRayError `no_blender`, `cannot_write`.
    """

    def __init__(self, command: Sequence[str], log: Path, *, piped: bool = False) -> None:
        self._log = log
        with writing(log.parent):
            stream = append_regular(log)
        # What a killed process leaves there is removed with it.
        self._temporary = tempfile.TemporaryDirectory(prefix="xray-", ignore_cleanup_errors=True)
        places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), self._temporary.name)
        try:
            with stream:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if piped else stream,
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def exit_code(self) -> int | None:
        """Of the process; None while it runs."""
        return self._process.poll()

    @property
    def output(self) -> str:
        """The contents of its log."""
        return self._log.read_text("utf-8", "replace")

    def death(self, doing: str, remedy: str = "") -> XRayError:
        """The error if it has ended by itself while `doing`."""
        message = f"Blender quit unexpectedly while {doing}."
        return XRayError("worker_died", message, remedy, details=self.output)

    def stop(self, grace: float = 0.0) -> None:
        """Kill the process if it does not end by itself in `grace` s."""
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._temporary.cleanup()


def extension_command(arguments: Sequence[str]) -> list[str]:
    """The command that runs ``blender -c xray`` with `arguments` and the user's preferences."""
    return blender_command(_executable(), arguments, extension_package())


def script_command(script: str, arguments: Sequence[str]) -> list[str]:
    """The command that runs the file `script` with factory settings, without any extension."""
    command = [_executable()]
    if bpy.app.binary_path:
        command += ["--background", "--factory-startup", "-noaudio", "--python"]
    return [*command, script, "--", *arguments]


def _executable() -> str:
    """Blender; Python if Blender is a Python module, which has no executable."""
    return bpy.app.binary_path or sys.executable
