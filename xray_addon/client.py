"""Blender's end of the model runtime: starts the process, submits jobs, never blocks.

Everything here is called from one thread (Blender's main one), which calls `RuntimeClient.poll`
from a timer; two threads a child only move bytes between its pipes and two queues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from os import PathLike
from pathlib import Path

from .errors import XRayError
from .generated import Generated
from .progress import Progress, ProgressCallback, ignore_progress
from .protocol import RuntimeStatus
from .settings import GenerateSettings

START_TIMEOUT = 120.0  # s for the first answer: a cold disk and a virus scanner are slow
CANCEL_GRACE = 5.0  # s a cancelled job has to end by itself before the process is terminated
TERMINATE_GRACE = 2.0  # s a terminated process has to end before it is killed
STOP_GRACE = 2.0  # s the process has to end by itself when the client stops


class JobState(StrEnum):
    """Where a job is; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(eq=False)
class Job:
    """One image on its way to a mesh. Read it after `RuntimeClient.poll`; only the client writes.

    state : see `JobState`; a plain string compares equal ("done").
    progress : the latest report.
    result : set when `state` is done. error : set when `state` is failed.
    cancelling : a cancel was asked for and is not through yet.
    """

    id: int
    image: Path
    settings: GenerateSettings
    state: JobState = JobState.QUEUED
    progress: Progress = field(default_factory=lambda: Progress("queued"))
    result: Generated | None = None
    error: XRayError | None = None
    cancelling: bool = False

    @property
    def finished(self) -> bool:
        """Whether `state` is final."""
        return self.state not in (JobState.QUEUED, JobState.RUNNING)


class RuntimeClient:
    """One runtime process, started when it is needed and started again when it died.

    Parameters
    ----------
    python : the interpreter of the runtime's environment (`RuntimeEnvironment.python`).
    log : file that hears everything the process writes to stderr; it is kept under 2 MB by
        moving it to `<log>.1` when the process starts.
    arguments : what `python` runs.
    start_timeout : s the process has for its first answer.

    Attributes
    ----------
    jobs : those that are not finished, in the order they will run.
    error : why the process last failed to start or died; None after the next good start.
    latest_status : the last answer to `request_status`; None before it and after a stop.
    """

    def __init__(
        self,
        python: str | PathLike[str],
        log: str | PathLike[str] | None = None,
        *,
        arguments: Sequence[str] = ("-m", "runtime", "serve"),
        start_timeout: float = START_TIMEOUT,
    ) -> None:
        self.jobs: list[Job] = []
        self.error: XRayError | None = None
        self.latest_status: RuntimeStatus | None = None
        raise NotImplementedError

    @property
    def is_running(self) -> bool:
        """Whether the process lives (it may still be starting)."""
        raise NotImplementedError

    @property
    def is_ready(self) -> bool:
        """Whether the process lives and has answered the handshake."""
        raise NotImplementedError

    @property
    def pid(self) -> int | None:
        """Of the process; None while there is none."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the process if there is none. Does not wait; errors come through `error`."""
        raise NotImplementedError

    def submit(self, image: str | PathLike[str], settings: GenerateSettings) -> Job:
        """Queue `image`; start the process if there is none. Does not wait and does not raise.

        Jobs run one after the other. When the process dies, the running job fails and the
        queued ones go to the next process.
        """
        raise NotImplementedError

    def poll(self) -> None:
        """Take what the process has said, and do what is due. Does not wait and does not raise."""
        raise NotImplementedError

    def wait(
        self,
        job: Job,
        on_progress: ProgressCallback = ignore_progress,
        timeout: float | None = None,
    ) -> Generated:
        """The result of `job`, for scripts without a timer.

        on_progress : hears every new report, and may raise `Cancelled` to cancel the job.
        timeout : s; after it the job is cancelled.

        Raises the job's XRayError, `Cancelled`, or XRayError `timed_out`.
        """
        raise NotImplementedError

    def cancel(self, job: Job) -> None:
        """Ask `job` to end. Does not wait: `poll` terminates and at last kills the process."""
        raise NotImplementedError

    def request_status(self) -> None:
        """Ask for `latest_status`; does not wait, and does nothing without a ready process."""
        raise NotImplementedError

    def status(self, timeout: float = 2.0) -> RuntimeStatus | None:
        """A fresh status, waiting at most `timeout` s; None without an answer or a process."""
        raise NotImplementedError

    def release(self) -> None:
        """Give the weights' memory back, once the running job is through. Does not wait."""
        raise NotImplementedError

    def stop(self) -> None:
        """End the process and every job; bounded by the graces above. May be called twice.

        `submit` works again afterwards. Also called when the interpreter exits.
        """
        raise NotImplementedError
