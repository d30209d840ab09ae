"""The client of the model runtime in Blender: starts the process, submits jobs, never blocks.

Everything here is called from one thread (Blender's main thread), which calls `RuntimeClient.poll`
from a timer. Two threads per process only move bytes between its pipes and two queues.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import XRayError, error_code, is_no_space
from ..files.arrays import read_array
from ..files.folders import default_folder
from ..generated import CutOut, Generated
from ..progress import Progress, State
from ..settings.generate import GenerateSettings
from ..systems.system import Inputs
from ..systems.weights import local_path
from . import protocol
from .child import RuntimeProcess, death_error, last_words, open_log, runtime_variables
from .private_folder import PrivateFolder, sweep
from .protocol import (
    GenerateParams,
    Message,
    ProtocolError,
    Request,
    Response,
    RuntimeStatus,
    WeightsParams,
)

START_TIMEOUT = 120.0  # s for the first answer; cold disks and virus scanners are slow
LARGEST_PREVIEW = 1 << 24  # bytes
CANCEL_GRACE = 5.0  # s for a cancelled job to end by itself before the process is terminated


STARTING = Progress("start", message="Starting the runtime")
SENT = Progress("start", message="Waiting for the runtime")
READING = Progress("read", message="Reading the mesh")

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Job:
    """A request to the runtime, such as the generation of a mesh from an image.

    Read its fields after `RuntimeClient.poll`; only the client changes them.

    method, params : of the request; the folder for results is filled in when it is sent.
    state : see `State`; a plain string compares equal ("done").
    progress : the latest report.
    result : set when `state` is done: a `Generated`, a `CutOut`, or the runtime's answer.
    error : set when `state` is failed.
    cancelling : cancellation is pending.
    """

    id: int
    method: str
    params: GenerateParams | WeightsParams
    state: State = State.QUEUED
    progress: Progress = field(default_factory=lambda: Progress("queued"))
    result: Any = None
    error: XRayError | None = None
    cancelling: bool = False

    @property
    def finished(self) -> bool:
        """Whether `state` is final."""
        return self.state not in (State.QUEUED, State.RUNNING)


class RuntimeClient:
    """One runtime process, which is started when it is needed and restarted if it died.

    Parameters
    ----------
    python : the interpreter of the runtime's environment (`RuntimeEnvironment.python`).
    log : file that receives the process's stderr (default: `runtime.log` in the default
        environment's folder); above 2 MB it is moved to `<log>.1` when the process starts.
    online : Blender's online-access setting; without it the process downloads no weights.
    arguments : the command line arguments of `python`.
    start_timeout : s for the process's first answer.

    Attributes
    ----------
    log : as above.
    online : as above; after a change the process restarts before the next job.
    checkpoints : folder of downloaded weights, "" for the default; a change restarts it too.
    jobs : unfinished jobs, in the order in which they will run.
    error : why the process last failed to start or died; reset to None at the next start.
    latest_status : requested after the start, after every job, and by `request_status`;
        None while there is no process.
    """

    def __init__(
        self,
        python: str | PathLike[str],
        log: str | PathLike[str] | None = None,
        *,
        online: bool = False,
        arguments: Sequence[str] = ("-m", "runtime", "serve"),
        start_timeout: float = START_TIMEOUT,
    ) -> None:
        self.log = default_folder() / "runtime.log" if log is None else Path(log)
        self.online = online
        self.checkpoints = ""
        self.jobs: list[Job] = []
        self.error: XRayError | None = None
        self.latest_status: RuntimeStatus | None = None
        self._command = [os.fspath(python), *arguments]
        self._start_timeout = start_timeout
        self._private: PrivateFolder | None = None
        self._process: RuntimeProcess | None = None
        self._started_with: tuple[bool, str] = (False, "")  # online and checkpoints
        self._reading: Future[Generated] | None = None  # the running job's result
        self._retried: Job | None = None  # was sent to a process that died, and is retried once
        self._numbers = itertools.count(1)
        self._questions: dict[protocol.Id, str] = {}  # methods of unanswered requests

    @property
    def is_running(self) -> bool:
        """Whether the process is running (it may still be starting)."""
        return self._process is not None

    @property
    def is_ready(self) -> bool:
        """Whether the process is running and has answered the handshake."""
        return self._process is not None and self._process.ready

    @property
    def pid(self) -> int | None:
        """The process id; None if no process is running."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process if there is none. Does not wait; errors are set in `error`."""
        if self._process is not None:
            return
        self.error = None
        if shutil.which(self._command[0]) is None:
            self._fail_start(
                "runtime_missing",
                f"The model runtime is not installed (there is no {self._command[0]}).",
                'Press "Install Runtime" in the preferences of X-Ray.',
            )
            return
        try:
            folder = self._own_folder()
            with open_log(self.log, self._command) as log:
                self._started_with = (self.online, self.checkpoints)
                environment = runtime_variables(*self._started_with)
                self._process = RuntimeProcess(
                    self._command, environment, folder, log, self._start_timeout
                )
        except (OSError, RuntimeError) as error:
            self._fail_start(
                "runtime_not_started",
                f"The model runtime cannot be started ({error}).",
                "Install the runtime again, and look whether its folder can be written to.",
            )
        else:
            self._ask(protocol.INITIALIZE, {"protocol": protocol.PROTOCOL_VERSION})

    def submit(self, inputs: Inputs | str | PathLike[str], settings: GenerateSettings) -> Job:
        """Queue a generation; start the process if there is none. Does not wait or raise.

        inputs : image and mask as paths, or only the image's path.

        Jobs run one after the other. If the process dies, the running job fails and queued jobs
        move to the new process.
        """
        return self._queue(protocol.GENERATE, _params(Inputs.of(inputs), settings))

    def cut_out(self, image: str | PathLike[str], settings: GenerateSettings) -> Job:
        """Queue a request that cuts the object out of `image`; otherwise as `submit`.

        The result is a `CutOut`.
        """
        return self._queue(protocol.CUT_OUT, _params(Inputs(image), settings))

    def ask_offer(self, name: str) -> Job:
        """Queue a request for what downloading the weights `name` would fetch.

        The result is that of `Offer.to_dict`. Otherwise as `submit`.
        """
        return self._queue(protocol.OFFER, WeightsParams(name))

    def download(self, name: str, revision: str) -> Job:
        """Queue the download of `revision`, which the user has confirmed; otherwise as `submit`."""
        return self._queue(protocol.DOWNLOAD, WeightsParams(name, revision))

    def _queue(self, method: str, params: GenerateParams | WeightsParams) -> Job:
        job = Job(next(self._numbers), method, params)
        self.jobs.append(job)
        self._advance()
        return job

    def poll(self) -> None:
        """Process new messages and deadlines. Does not wait or raise."""
        process = self._process
        if process is not None:
            for message in process.received():
                try:
                    self._receive(process, message)
                except Exception:  # another process's message may be wrong in any way
                    logger.exception("the runtime's message cannot be used")
                    process.condemn(
                        XRayError(
                            "bad_reply",
                            "The runtime's message cannot be used.",
                            "Try again; the runtime is started anew.",
                            str(self.log),
                        )
                    )
            process.enforce_deadlines()
            if process.ended:
                self._bury(process)
        if self._reading is not None and self._reading.done():
            self._take_result(self.jobs[0], self._reading)
        self._advance()

    def cancel(self, job: Job) -> None:
        """Cancel `job`. Does not wait: `poll` ends the process if the job does not stop."""
        if job.state is State.QUEUED:
            self._finish(job, State.CANCELLED)
        elif job.state is State.RUNNING and not job.cancelling:
            job.cancelling = True
            if self._process is not None and self._reading is None:
                self._ask(protocol.CANCEL, {"id": job.id})
                self._process.terminate_after(CANCEL_GRACE)

    def request_status(self) -> None:
        """Request `latest_status`. Does not wait; does nothing without a ready process."""
        if self.is_ready and protocol.STATUS not in self._questions.values():
            self._ask(protocol.STATUS)

    def release(self) -> None:
        """Release the weights' memory after the running job. Does not wait."""
        if self.is_ready:
            self._ask(protocol.RELEASE)

    def stop(self) -> None:
        """End the process, within grace periods, and cancel all jobs. It is safe to call it twice.

        `submit` works again afterwards. Also called when the interpreter exits.
        """
        atexit.unregister(self.stop)
        for job in tuple(self.jobs):
            self._finish(job, State.CANCELLED)
        self._reading = None
        if self._process is not None:
            self._ask(protocol.SHUTDOWN)
            self._process.stop()
            self._forget_process()
        if self._private is not None:
            self._private.remove()
            self._private = None

    def _ask(self, method: str, params: dict[str, Any] | None = None) -> int:
        """Send a request. Returns its id, which stays in `_questions` until it is answered."""
        number = next(self._numbers)
        if self._process is not None:
            self._questions[number] = method
            self._process.send(Request(method, params or {}, number))
        return number

    def _advance(self) -> None:
        """Start the next job, or first the process."""
        if not self.jobs or self.jobs[0].state is not State.QUEUED:
            return
        if self._process is None or not self._process.ready:
            self.jobs[0].progress = STARTING
        if self._process is None:
            self.start()
        elif self._process.ready and not self._process.doomed:
            if self._started_with != (self.online, self.checkpoints):
                self._process.terminate_after(0.0)  # it is idle, and has the old settings
                return
            job, params = self.jobs[0], self.jobs[0].params
            job.state, job.progress = State.RUNNING, SENT
            if isinstance(params, GenerateParams):
                try:
                    params = replace(params, folder=str(self._own_folder()))
                except OSError as error:
                    self._finish(job, State.FAILED, _no_folder(error))
                    return
            try:
                self._process.send(Request(job.method, params.to_dict(), job.id))
            except ValueError as error:
                self._finish(
                    job,
                    State.FAILED,
                    XRayError(
                        "bad_settings",
                        f"The settings cannot be sent ({error}).",
                        "Correct the settings and try again.",
                    ),
                )

    def _receive(self, process: RuntimeProcess, message: Message | ProtocolError) -> None:
        if isinstance(message, ProtocolError):
            logger.warning("the runtime sent no message: %s", message.message)
            if self._running is not None:
                # The lost line may have been the job's reply, which is not sent again.
                process.condemn(
                    XRayError(
                        "bad_reply",
                        f"The runtime's reply cannot be read: {message.message}",
                        "Try again; the runtime is started anew.",
                        str(self.log),
                    )
                )
        elif isinstance(message, Request):
            self._hear_progress(message)
        elif self._running is not None and message.id == self._running.id:
            self._hear_result(process, self._running, message)
        else:
            self._hear_answer(process, message)

    @property
    def _running(self) -> Job | None:
        """The job that is running in the process."""
        if not self.jobs or self.jobs[0].state is not State.RUNNING or self._reading is not None:
            return None
        return self.jobs[0]

    def _hear_progress(self, message: Request) -> None:
        if message.method != protocol.PROGRESS:
            logger.warning("the runtime asked for %r", message.method)
            return
        try:
            number, progress, file = protocol.progress_from_params(message.params)
        except ProtocolError as error:
            logger.warning("%s", error.message)
            return
        if self._running is not None and self._running.id == number:
            preview = self._read_preview(Path(file)) if file else None
            self._running.progress = replace(progress, preview=preview)

    def _read_preview(self, file: Path) -> NDArray[np.uint8] | None:
        """The small picture in `file`, which is then removed; None if it cannot be read."""
        if not self._is_ours(file):
            return None
        try:
            picture = read_array(file, largest=LARGEST_PREVIEW)
        except (OSError, ValueError) as error:
            logger.warning("the preview %s cannot be read: %s", file, error)
            return None
        finally:
            with suppress(OSError, ValueError):  # it may not be a file
                file.unlink(missing_ok=True)
        shown = picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 4
        return picture if shown else None

    def _is_ours(self, file: Path) -> bool:
        return self._folder is not None and file.parent == self._folder

    @property
    def _folder(self) -> Path | None:
        """The private folder: the process's working folder, which it writes results to."""
        return self._private.path if self._private else None

    def _own_folder(self) -> Path:
        """The private folder, recreated if it was removed. Raises OSError."""
        if self._private is None:
            atexit.register(self.stop)
            sweep()
        elif self._private.path.is_dir():
            return self._private.path
        else:
            self._private.remove()
        self._private = PrivateFolder()
        return self._private.path

    def _hear_answer(self, process: RuntimeProcess, message: Response) -> None:
        method = self._questions.pop(message.id, None)
        if method is None:
            logger.warning("the runtime answered an unknown request: %r", message.id)
            if message.error is not None and message.id is None and self._running is not None:
                process.condemn(self._with_log(message.error))
        elif method == protocol.INITIALIZE:
            self._hear_handshake(process, message)
        elif message.error is not None:
            logger.warning("%s failed: %s", method, message.error.message)
        elif method == protocol.RELEASE:
            self.request_status()
        elif method == protocol.STATUS:
            try:
                self.latest_status = RuntimeStatus.from_dict(message.result or {})
            except ProtocolError as error:
                logger.warning("%s", error.message)

    def _hear_handshake(self, process: RuntimeProcess, message: Response) -> None:
        theirs = (message.result or {}).get("protocol")
        if message.error is not None:
            process.condemn(self._with_log(message.error))
        elif theirs != protocol.PROTOCOL_VERSION:
            process.condemn(
                XRayError(
                    "version_mismatch",
                    f"The runtime speaks protocol {theirs}, Blender's side "
                    f"{protocol.PROTOCOL_VERSION}.",
                    "Restart Blender, so that both come from the same version of X-Ray.",
                    str(self.log),
                )
            )
        else:
            process.greet()
            self.request_status()

    def _hear_result(self, process: RuntimeProcess, job: Job, message: Response) -> None:
        process.spare()
        self.request_status()
        error = message.error
        file = Path(str((message.result or {}).get("file", "")))
        makes_file = job.method in (protocol.GENERATE, protocol.CUT_OUT)
        if makes_file and error is None and not self._is_ours(file):
            reason = f"The runtime names no result file ({file})."
            error = XRayError("bad_result", reason, "Try again.")
        if error is not None and error.code != "cancelled" and not job.cancelling:
            self._finish(job, State.FAILED, error)
        elif error is not None:
            self._finish(job, State.CANCELLED)
        elif job.method == protocol.GENERATE:
            job.progress = READING
            self._reading = _read_result(file)
        elif job.method == protocol.CUT_OUT:
            picture = self._read_preview(file)
            if picture is None:
                reason = "The runtime's cut-out cannot be read."
                self._finish(job, State.FAILED, XRayError("bad_result", reason, "Try again."))
                return
            told = message.result or {}
            job.result = CutOut(picture, str(told.get("how", "")), bool(told.get("at_border")))
            self._finish(job, State.DONE)
        else:
            job.result = message.result
            self._finish(job, State.DONE)

    def _take_result(self, job: Job, reading: Future[Generated]) -> None:
        self._reading = None
        error = reading.exception()
        if job.cancelling:
            self._finish(job, State.CANCELLED)
        elif error is None:
            job.result = reading.result()
            self._finish(job, State.DONE)
        elif isinstance(error, XRayError):
            self._finish(job, State.FAILED, error)
        else:  # another process's file may be wrong in any way
            logger.error("the result cannot be read", exc_info=error)
            reason = f"The result cannot be read ({error})."
            self._finish(job, State.FAILED, XRayError("bad_result", reason, "Generate again."))

    def _finish(self, job: Job, state: State, error: XRayError | None = None) -> None:
        job.state, job.cancelling = state, False
        job.error = None if error is None else self._with_log(error)
        self.jobs.remove(job)

    def _with_log(self, error: XRayError) -> XRayError:
        log = "" if error_code(error.code).blames_image else str(self.log)
        return XRayError(error.code, error.message, error.remedy, error.log or log)

    def _fail_start(self, code: str, message: str, remedy: str) -> None:
        self.error = XRayError(code, message, remedy, str(self.log))
        for job in tuple(self.jobs):
            self._finish(job, State.FAILED, self.error)

    def _bury(self, process: RuntimeProcess) -> None:
        """Handle a dead process: end its job, or all jobs if it never got ready."""
        job = self._running
        error = process.failure or death_error(
            process.returncode, process.ready, last_words(self.log)
        )
        error = self._with_log(error)
        process.abandon()
        self._forget_process()
        if self._private is not None and self._reading is None:
            self._private.clear()
        if job is not None and job.cancelling:
            self._finish(job, State.CANCELLED)
            return
        if (
            job is not None
            and process.failure is None
            and job.progress == SENT
            and job is not self._retried
        ):
            # It died before it began the job, most likely while it was idle.
            self._retried = job
            job.state = State.QUEUED
            logger.warning("%s", error)
            return
        if process.terminated:
            return  # because of a job that ended at the last moment, so it is no error
        self.error = error
        logger.warning("%s", error)
        doomed = tuple(self.jobs) if not process.ready else (job,) if job is not None else ()
        for each in doomed:
            self._finish(each, State.FAILED, error)

    def _forget_process(self) -> None:
        self._process = None
        self.latest_status = None
        self._questions.clear()


def _params(inputs: Inputs, settings: GenerateSettings) -> GenerateParams:
    """The request for `inputs`; the folder is filled in when it is sent."""
    settings = replace(settings)
    # Paths become absolute, because the process has another working folder. What is no path is a
    # hub id.
    for item in fields(settings):
        value = getattr(settings, item.name)
        if item.metadata.get("path") and value and (path := local_path(value)) is not None:
            setattr(settings, item.name, str(path.absolute()))
    image, mask = (
        None if file is None else str(Path(file).absolute()) for file in (inputs.image, inputs.mask)
    )
    return GenerateParams(Inputs(image, mask, inputs.category), "", settings)


def _no_folder(error: OSError) -> XRayError:
    return XRayError(
        "no_space" if is_no_space(error) else "cannot_write",
        f"There is no temporary folder for the result ({error.strerror or error}).",
        "Free some space where temporary files go, and try again.",
    )


def _read_result(file: Path) -> Future[Generated]:
    """Read the saved `file` in another thread, then remove it."""

    def read() -> Generated:
        try:
            return Generated.load(file)
        finally:
            with suppress(OSError, ValueError):
                file.unlink(missing_ok=True)

    threads = ThreadPoolExecutor(1, "xray-result")
    result = threads.submit(read)
    threads.shutdown(wait=False)
    return result
