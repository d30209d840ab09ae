"""A Blender process that captures items, and the handling of its failures."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from xray_addon.dataset.manifest import Item
from xray_addon.dataset.result import ItemResult
from xray_addon.dataset.store import writing
from xray_addon.errors import XRayError
from xray_addon.files.json_files import parse_json
from xray_addon.files.json_schema import plain

START_TIMEOUT = 180.0  # s for a process to start and process an empty input, even from a cold disk
STOP_GRACE = 5.0  # s for a process to exit before it is killed
EXIT_GRACE = 2.0  # s for a process to exit after the end of its output
LINE_LIMIT = 2**20  # most bytes in a line of output
CHUNK = 2**16

# Signals sent by people or schedulers; the current item did not cause them.
_ENDED_BY_HAND = {
    getattr(signal, name).value for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
}


class WorkerLost(XRayError):
    """The process died or had to be killed before it answered.

    by_hand : whether it was ended from outside.
    """

    def __init__(self, code: str, message: str, remedy: str, by_hand: bool = False) -> None:
        super().__init__(code, message, remedy)
        self.by_hand = by_hand


class Worker:
    """One process; `start` it, `capture` items one after the other, `stop` it.

    command : see `xray_addon.dataset.worker`.
    log : file for the process's output other than results.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.log = log
        self.answered = 0
        self._command = command
        self._busy = False
        self._process: asyncio.subprocess.Process | None = None

    @property
    def alive(self) -> bool:
        """Whether the process is running, as far as known."""
        return self._process is not None and self._process.returncode is None

    @property
    def memory(self) -> float:
        """Resident megabytes; 0 if the process has ended."""
        if self._process is None:
            return 0.0
        try:
            return psutil.Process(self._process.pid).memory_info().rss / 2**20
        except psutil.Error:
            return 0.0

    async def start(self) -> None:
        """Start the process. Raises XRayError `no_blender`, `cannot_write`."""
        await _to_the_end(self._start())

    async def capture(self, item: Item, timeout: float) -> ItemResult:
        """Let the process capture `item`.

        timeout : s; the first item also gets the process's start time. Raises WorkerLost, and
        XRayError `cannot_write` for its log.
        """
        process = self._process
        assert process is not None
        assert process.stdin is not None
        self._busy = True
        try:
            async with asyncio.timeout(timeout if self.answered else timeout + START_TIMEOUT):
                with suppress(ConnectionError):  # it is dead; the reading below notices it
                    process.stdin.write(json.dumps(item.to_dict()).encode() + b"\n")
                    await process.stdin.drain()
                result = await self._answer(process, item)
        except TimeoutError:
            raise WorkerLost(
                "worker_hung",
                f"Blender did not finish within {timeout:g} s and was killed.",
                "Check the file, or allow more time with --timeout.",
            ) from None
        if result is None:
            raise await self._death(process)
        self._busy = False
        self.answered += 1
        return result

    async def stop(self) -> None:
        """Stop the process: close its input, interrupt it if it is busy, and finally kill it."""
        await _to_the_end(self._stop())

    async def _start(self) -> None:
        with writing(self.log.parent), self.log.open("ab") as log:
            self._process = await _spawn(self._command, log.fileno(), asyncio.subprocess.PIPE)

    async def _stop(self) -> None:
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if self._busy:
            _signal(process, signal.SIGINT)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_GRACE):
                await process.wait()
        await _reap(process)

    async def kill(self) -> None:
        """Kill the process and its children."""
        if self._process is not None:
            await _reap(self._process)

    async def _answer(self, process: asyncio.subprocess.Process, item: Item) -> ItemResult | None:
        """The result for `item`, or None at the end of the output."""
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # a line longer than the limit
                return None
            if not line:
                return None
            result = _parse(line)
            if result is not None and result.uid == item.uid:
                return result
            with writing(self.log.parent), self.log.open("ab") as log:
                log.write(line)

    async def _death(self, process: asyncio.subprocess.Process) -> WorkerLost:
        try:
            async with asyncio.timeout(EXIT_GRACE):
                code = await process.wait()
        except TimeoutError:
            await _reap(process)
            return WorkerLost(
                "worker_died",
                "Blender's output contained no valid answer.",
                "Check the file and the log.",
            )
        return WorkerLost(
            "worker_died",
            f"Blender stopped ({_how(code)}).",
            "The system may have run out of memory; use fewer --jobs."
            if code == -9
            else "Check the file and the log.",
            by_hand=-code in _ENDED_BY_HAND,
        )


async def check(command: Sequence[str], log: Path) -> None:
    """Check that a worker starts and exits, so that no item is blamed for a broken installation.

    Raises XRayError `no_blender`, `worker_not_started`, `cannot_write`, and the worker's errors
    about settings.
    """
    output = b""
    with writing(log.parent), log.open("wb") as stream:
        process = await _spawn(command, stream.fileno(), asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(START_TIMEOUT):
            assert process.stdout is not None
            while chunk := await process.stdout.read(CHUNK):
                output = (output + chunk)[-LINE_LIMIT:]
                with writing(log.parent), log.open("ab") as stream:
                    stream.write(chunk)
            code = await process.wait()
        how = _how(code)
    except TimeoutError:
        code, how = 1, f"it did not end within {START_TIMEOUT:g} s"
    finally:
        await _reap(process)
    for result in filter(None, map(_parse, output.splitlines())):
        raise XRayError(result.code, result.reason)  # about the settings, because no item was sent
    if code:
        raise XRayError(
            "worker_not_started",
            f"Blender's dataset worker does not start ({how}).",
            "Install the X-Ray extension in that Blender and enable it. See the log for details.",
            str(log),
        )


async def _spawn(command: Sequence[str], log: int, stdin: int) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            limit=LINE_LIMIT,
            # Only the farm receives Ctrl-C from the terminal; it stops its workers.
            start_new_session=True,
            preexec_fn=_child_setup(),
        )
    except OSError as error:
        raise XRayError(
            "no_blender",
            f"{command[0]} cannot be started ({error.strerror or error}).",
            "Give Blender's path with --blender.",
        ) from error


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Await the end of `work` even if the caller is cancelled, so that no process is left over."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


async def _reap(process: asyncio.subprocess.Process) -> None:
    """Kill the process and its children, and close its pipes."""
    _signal(process, getattr(signal, "SIGKILL", signal.SIGTERM))
    if process.stdin is not None:
        process.stdin.close()
    await process.wait()
    with suppress(TimeoutError):  # a child outside the process group holds the pipe
        async with asyncio.timeout(EXIT_GRACE):
            while process.stdout is not None and await process.stdout.read(CHUNK):
                pass


def _child_setup() -> Callable[[], None] | None:
    """On Linux, a function that a worker process runs before it executes Blender.

    It makes the worker die with the farm, even if the worker hangs and the farm is killed. It also
    makes it ignore SLURM's signal before a job's time limit, which is meant for the farm.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    pr_set_pdeathsig = 1

    def setup() -> None:
        prctl(pr_set_pdeathsig, signal.SIGKILL.value)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)

    return setup


def _signal(process: asyncio.subprocess.Process, number: int) -> None:
    """Send a signal to the process group, even if the process itself has ended."""
    with suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, number)
        elif process.returncode is None and number != signal.SIGINT:  # Windows has no such signal
            process.kill()


def _parse(line: bytes) -> ItemResult | None:
    try:
        return ItemResult.from_dict(parse_json(line, plain))
    except ValueError:
        return None


def _how(code: int) -> str:
    """How a process ended, for messages."""
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit code 0x{code:08X}" if code > 0xFFFF else f"exit code {code}"
