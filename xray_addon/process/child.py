"""One runtime process: its pipes, threads, deadlines, log, and the error if it dies."""

from __future__ import annotations

import io
import logging
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from ..errors import XRayError, is_out_of_memory
from ..files.folders import CACHE_VARIABLE
from ..files.opening import append_regular
from . import protocol
from .installer import NO_WINDOW, child_environment
from .protocol import Message, ProtocolError

logger = logging.getLogger(__name__)

TERMINATE_GRACE = 2.0  # s for a terminated process to end before it is killed
STOP_GRACE = 2.0  # s for the process to end by itself when the client stops
DEATH_GRACE = 2.0  # s to wait for the rest after the process exits or its output ends
LAST_WORDS = 2_000  # bytes at the end of the log that are checked when a process died
LOG_LIMIT = 2_000_000  # bytes after which a new log is started
MESSAGES_HELD = 10_000  # unread messages after which the process has to wait
MESSAGES_A_POLL = 1_000  # so that a flood of messages cannot block `poll`

EXTENSION_FOLDER = Path(__file__).resolve().parents[2]


class RuntimeProcess:
    """One child process with its pipes, threads and deadlines."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        log: BinaryIO,
        start_timeout: float,
    ) -> None:
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=folder,
            env=environment,
            bufsize=0,
            creationflags=NO_WINDOW,
        )
        self.ready = False
        self.failure: XRayError | None = None  # why it was killed
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._incoming: queue.Queue[Message | ProtocolError] = queue.Queue(MESSAGES_HELD)
        self._abandoned = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=f"xray-{name}", daemon=True)
            for name, target in (("reader", self._read), ("writer", self._write))
        ]
        self._answer_by: float | None = time.monotonic() + start_timeout
        self._start_timeout = start_timeout
        self._terminate_at: float | None = None
        self._kill_at: float | None = None
        self._give_up_at: float | None = None
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError:  # the interpreter is about to exit
            self._popen.kill()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._popen.poll()

    @property
    def ended(self) -> bool:
        """Whether it is dead and its messages are read, or waiting for them has timed out."""
        exited = self._popen.poll() is not None
        reader_done = not self._threads[0].is_alive()
        if exited and reader_done:
            return self._incoming.empty()
        if (exited or reader_done) and self._give_up_at is None:
            self._give_up_at = time.monotonic() + DEATH_GRACE
        if self._give_up_at is None or time.monotonic() < self._give_up_at:
            return False
        if not exited:
            self._popen.kill()
        return True

    @property
    def terminated(self) -> bool:
        """Whether it was terminated because a cancelled job did not stop."""
        return self._kill_at is not None

    @property
    def doomed(self) -> bool:
        """Whether it was terminated or killed, for any reason."""
        return self.terminated or self.failure is not None

    def send(self, message: Message) -> None:
        """Pass `message` to the writing thread. Raises ValueError if it cannot be encoded."""
        self._outgoing.put(protocol.encode(message))

    def received(self) -> list[Message | ProtocolError]:
        """The messages received since the last call, up to a limit."""
        messages: list[Message | ProtocolError] = []
        while len(messages) < MESSAGES_A_POLL:
            try:
                messages.append(self._incoming.get_nowait())
            except queue.Empty:
                break
        return messages

    def greet(self) -> None:
        """Mark the handshake as done."""
        self.ready = True
        self._answer_by = None

    def terminate_after(self, grace: float) -> None:
        """Terminate it in `grace` s, and kill it later, unless `spare` is called before."""
        self._terminate_at = time.monotonic() + grace

    def spare(self) -> None:
        """Do not terminate it: the cancelled job has ended in time."""
        if self._kill_at is None:
            self._terminate_at = None

    def condemn(self, failure: XRayError) -> None:
        """Kill it at once, because of `failure`."""
        if self.failure is None:
            self.failure = failure
        self._popen.kill()
        self._give_up_at = self._give_up_at or time.monotonic() + DEATH_GRACE

    def enforce_deadlines(self) -> None:
        """Terminate or kill it if a deadline has passed."""
        now = time.monotonic()
        if self._answer_by is not None and now > self._answer_by:
            self._answer_by = None
            self.condemn(
                XRayError(
                    "runtime_not_answering",
                    f"The runtime did not answer in {self._start_timeout:g} s after its start.",
                    "Try again; if it happens again, install the runtime again.",
                )
            )
        elif self._kill_at is not None and now > self._kill_at:
            self._popen.kill()
            self._give_up_at = self._give_up_at or now + DEATH_GRACE
        elif self._terminate_at is not None and now > self._terminate_at:
            self._terminate_at = None
            self._kill_at = now + TERMINATE_GRACE
            self._popen.terminate()

    def abandon(self) -> None:
        """Let the threads end: later messages are dropped, and nothing more is sent."""
        self._abandoned.set()
        self._outgoing.put(None)

    def stop(self) -> None:
        """End it: close its input, then terminate it, then kill it, each with a grace period."""
        self.abandon()
        for grace, harder in (
            (STOP_GRACE, self._popen.terminate),
            (TERMINATE_GRACE, self._popen.kill),
            (DEATH_GRACE, None),
        ):
            try:
                self._popen.wait(grace)
                break
            except subprocess.TimeoutExpired:
                if harder is not None:
                    harder()
        for thread in self._threads:
            thread.join(DEATH_GRACE)

    def _read(self) -> None:
        assert self._popen.stdout is not None
        with io.BufferedReader(self._popen.stdout) as stream:  # type: ignore[type-var]
            for message in protocol.read_messages(stream):
                self._keep(message)

    def _keep(self, message: Message | ProtocolError) -> None:
        while not self._abandoned.is_set():
            try:
                self._incoming.put(message, timeout=DEATH_GRACE)
                return
            except queue.Full:
                continue

    def _write(self) -> None:
        assert self._popen.stdin is not None
        with self._popen.stdin as stream:
            while (line := self._outgoing.get()) is not None:
                rest = memoryview(line)
                try:
                    while rest:
                        rest = rest[stream.write(rest) :]
                except OSError:
                    return  # the process is dead; the reader notices it too


# What a process writes to its log if the GPU's driver fails.
_DRIVER = ("CUDA error", "CUDA driver", "NVIDIA driver", "unspecified launch failure", "hipError")


def last_words(log: Path) -> str:
    """The end of the last process's output in `log`."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - LAST_WORDS))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return text.rpartition("\n--- ")[2]


def death_error(returncode: int | None, was_ready: bool, words: str = "") -> XRayError:
    """The error that explains why a process ended by itself with `returncode`.

    words : the end of its output in the log.
    """
    when = "" if was_ready else " while it started"
    if returncode is None:
        how = "it does not react"
    elif returncode < 0:
        try:
            how = signal.Signals(-returncode).name
        except ValueError:
            how = f"signal {-returncode}"
    elif returncode > 0xFFFF:
        how = f"exit code 0x{returncode:08X}"  # the usual form of Windows's exceptions
    else:
        how = f"exit code {returncode}"
    if is_out_of_memory(words):
        how = f"out of memory, {how}"
        remedy = "Close other programs and try again, or take smaller settings or the CPU."
    elif any(sign in words for sign in _DRIVER):
        how = f"the GPU's driver failed, {how}"
        remedy = "Restart the computer or update the driver, or set the device to the CPU."
    elif how == "SIGKILL":
        how = "killed, SIGKILL"
        remedy = "The system may have run out of memory: close other programs and try again."
    elif how == "SIGTERM":
        how = "ended from outside, SIGTERM"
        remedy = "Try again; the runtime is started anew."
    elif was_ready:
        remedy = "Try again; the runtime is started anew."
    else:
        remedy = "The log says why. If it does not help, install the runtime again."
    return XRayError("runtime_died", f"The model runtime stopped{when} ({how}).", remedy)


def runtime_variables(online: bool, checkpoints: str = "") -> dict[str, str]:
    """The environment variables of the process."""
    chosen = {CACHE_VARIABLE: checkpoints} if checkpoints else {}
    return (
        child_environment()
        | chosen
        | {
            "PYTHONPATH": str(EXTENSION_FOLDER),
            "PYTHONNOUSERSITE": "1",
            "PYTHONUTF8": "1",
            protocol.ONLINE_VARIABLE: "1" if online else "0",
            "HF_HUB_OFFLINE": "0" if online else "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
    )


def open_log(path: Path, command: Sequence[str]) -> BinaryIO:
    """Open `path` for appending; a file that has grown too large is moved aside first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if path.stat().st_size > LOG_LIMIT:
            path.replace(path.with_name(path.name + ".1"))
    except OSError:
        logger.debug("%s stays: it is new, or in use by another Blender", path)
    log = append_regular(path, private=True)
    log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(command)}\n".encode())
    log.flush()
    return log
