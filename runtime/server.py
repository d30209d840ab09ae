"""The runtime's end of the pipe: reads requests from stdin, generates, replies on stdout.

Three threads: the main thread generates (some libraries crash on any other). One reads requests,
so that cancelling and the end of the input are noticed while a model blocks. One watches the
parent process. Nothing here imports torch; the generators do.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib.metadata
import logging
import os
import platform
import queue
import signal
import sys
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from xray_addon.canonical import FILL
from xray_addon.errors import XRayError
from xray_addon.generated import reached_sides
from xray_addon.process import protocol
from xray_addon.process.private_folder import remove_ownerless
from xray_addon.process.protocol import (
    GenerateParams,
    Id,
    Message,
    ProtocolError,
    Request,
    Response,
    RuntimeStatus,
    WeightsParams,
)
from xray_addon.progress import Cancelled, Progress
from xray_addon.systems import find_system

from .errors import typed_error
from .images.kinds import check_inputs
from .registry import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from .generator import Generator

IDLE_TIMEOUT = 300.0  # s without a request before the weights are released
DEATH_WAIT = 1.0  # s between the end of the input and the end of a killed parent
EXIT_GRACE = 0.5  # s for running work to stop before the process exits
PREVIEW_INTERVAL = 0.2  # s between two preview pictures
CUT_OUT_SIZE = 256  # px of a cut-out's preview
PARENT_INTERVAL = 0.25  # s between two checks of the parent process

REPORTED_PACKAGES = ("torch", "diffusers", "rembg", "onnxruntime", "numpy")

logger = logging.getLogger("xray.runtime")


def take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The real stdin and stdout, only for the protocol.

    Afterwards file descriptor 1 is stderr and 0 is empty, for this process's libraries and for
    processes they start, so that a print cannot corrupt the replies.
    """
    sys.stdout.flush()
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdout = sys.stderr
    return requests, replies


def serve(idle_timeout: float = IDLE_TIMEOUT) -> int:
    """Answer requests until the input ends; returns the exit code.

    idle_timeout : s without a request before the weights are released.
    """
    requests, replies = take_pipes()
    faulthandler.enable()
    # Ctrl-C in a terminal reaches the whole process group; the parent decides what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.captureWarnings(True)
    logger.info("runtime %s starts, Python %s", os.getpid(), platform.python_version())
    Server(requests, replies, idle_timeout).run()
    logger.info("runtime %s ends", os.getpid())
    return 0


@dataclass(frozen=True)
class _Loaded:
    """A generator in memory. key : requested generator, checkpoint and device."""

    key: tuple[str, str, str]
    generator: Generator
    device: str
    device_name: str


class Server:
    """Serves one client over a pair of pipes. `run` returns when the client asks or is gone."""

    def __init__(
        self, requests: BinaryIO, replies: BinaryIO, idle_timeout: float = IDLE_TIMEOUT
    ) -> None:
        self._requests = requests
        self._replies = replies
        self._write_lock = threading.Lock()
        self._idle_timeout = idle_timeout
        self._idle_since = time.monotonic()
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._cancels: dict[Id, threading.Event] = {}  # one for each unfinished job
        self._ending = threading.Event()
        self._initialized = False
        self._asked_to_end = False
        self._removing = threading.Lock()
        self._busy = False
        self._loaded: _Loaded | None = None
        self._may_hold_weights = False
        self._versions = _versions()
        self._parent = os.getppid()  # before any reply: the parent may die right after one

    def run(self) -> None:
        """Generate on this thread until the server ends."""
        threading.Thread(target=self._read, name="requests", daemon=True).start()
        threading.Thread(target=self._watch_parent, name="parent", daemon=True).start()
        while not self._ending.is_set():
            try:
                work = self._work.get(timeout=self._idle_left())
            except queue.Empty:
                logger.info("idle for %g s", self._idle_timeout)
                self._release()
                continue
            if work is None:
                break
            work()
            self._idle_since = time.monotonic()
        self._remove_folder_of_the_dead()

    def _idle_left(self) -> float | None:
        if not self._may_hold_weights:
            return None
        return max(0.0, self._idle_since + self._idle_timeout - time.monotonic())

    # The reader's thread

    def _read(self) -> None:
        for message in protocol.read_messages(self._requests):
            if isinstance(message, ProtocolError):
                logger.warning("%s", message)
                self._send(Response(message.id, error=message))
            elif isinstance(message, Response):
                logger.warning("nothing was asked, but %r was answered", message.id)
            else:
                self._answer(message)
        self._end("the input ended")

    def _watch_parent(self) -> None:
        # The end of the input shows this too, unless another child of the parent holds the pipe
        # open. (On Windows getppid never changes, but there no other child does.)
        while os.getppid() == self._parent:
            time.sleep(PARENT_INTERVAL)
        self._end("the parent process is gone")

    def _end(self, why: str) -> None:
        logger.info("%s", why)
        for cancel in tuple(self._cancels.values()):
            cancel.set()
        self._ending.set()
        self._work.put(None)
        time.sleep(EXIT_GRACE)
        # Only reached if the main thread is stuck in a model, whose result is no longer needed.
        self._remove_folder_of_the_dead()
        os._exit(0)

    def _remove_folder_of_the_dead(self) -> None:
        """Remove this process's folder if its parent was killed, because nobody else would.

        Called after the work has ended, which would otherwise create the folder again.
        """
        if self._asked_to_end:
            return
        end = time.monotonic() + DEATH_WAIT  # a dying parent's pipes close before it is gone
        while os.getppid() == self._parent:
            if time.monotonic() > end:
                return
            time.sleep(DEATH_WAIT / 50)
        with self._removing, suppress(FileNotFoundError):  # already removed
            folder = Path.cwd()
            # A thread of a dying parent may still hold its lock when its children have a new one.
            end = time.monotonic() + DEATH_WAIT
            while folder.exists() and time.monotonic() < end:
                remove_ownerless(folder)
                time.sleep(DEATH_WAIT / 50)

    def _answer(self, request: Request) -> None:
        try:
            result = self._dispatch(request)
        except XRayError as error:
            logger.warning("%.200s: %s", request.method, error)
            self._reply(request.id, error=error)
            return
        except Exception as error:  # without this thread the process would no longer answer
            logger.exception("%.200s failed", request.method)
            self._reply(request.id, error=typed_error(error))
            return
        if result is not None:
            self._reply(request.id, result)
        if request.method == protocol.SHUTDOWN:
            self._asked_to_end = True
            self._end("asked to shut down")

    def _dispatch(self, request: Request) -> dict[str, Any] | None:
        """The reply, or None if it follows later. Raises XRayError."""
        method = request.method
        if method == protocol.INITIALIZE:
            return self._initialize(request.params)
        if method == protocol.SHUTDOWN:
            return {}
        if not self._initialized:
            raise ProtocolError(protocol.INVALID_REQUEST, f"{method} came before initialize.")
        if method in (protocol.GENERATE, protocol.CUT_OUT, protocol.OFFER, protocol.DOWNLOAD):
            self._queue_job(request)
            return None
        if method == protocol.RELEASE:
            self._work.put(lambda: self._reply(request.id, {"released": self._release()}))
            return None
        if method == protocol.CANCEL:
            job = request.params.get("id")
            if not protocol.is_id(job):
                raise ProtocolError(protocol.INVALID_PARAMS, "cancel needs the id of a request.")
            cancel = self._cancels.get(job)
            if cancel is not None:
                cancel.set()
            return {"cancelled": cancel is not None}
        if method == protocol.STATUS:
            return self.status().to_dict()
        raise ProtocolError(protocol.METHOD_NOT_FOUND, f"There is no method {method!r}.")

    def _initialize(self, params: dict[str, Any]) -> dict[str, Any]:
        theirs = params.get("protocol")
        if type(theirs) is not int:
            raise ProtocolError(protocol.INVALID_PARAMS, "initialize needs the integer protocol.")
        if theirs != protocol.PROTOCOL_VERSION:
            raise XRayError(
                "version_mismatch",
                f"Blender's side speaks protocol {theirs}, the runtime "
                f"{protocol.PROTOCOL_VERSION}.",
                "Restart Blender, so that both come from the same version of X-Ray.",
            )
        self._initialized = True
        return {
            "protocol": protocol.PROTOCOL_VERSION,
            "pid": os.getpid(),
            "versions": self._versions,
        }

    def _queue_job(self, request: Request) -> None:
        number, method = request.id, request.method
        if number is None or number in self._cancels:
            raise ProtocolError(protocol.INVALID_REQUEST, f"{method} needs an id of its own.")
        cancel = threading.Event()
        work: Callable[[], dict[str, Any]]
        if method in (protocol.GENERATE, protocol.CUT_OUT):
            run = self._run if method == protocol.GENERATE else self._cut_out
            work = partial(run, number, GenerateParams.from_dict(request.params), cancel)
        else:
            weights = WeightsParams.from_dict(request.params)
            work = partial(self._fetch, number, method, weights, cancel)
        self._cancels[number] = cancel
        self._work.put(lambda: self._do(number, work))

    def status(self) -> RuntimeStatus:
        """What is loaded and where; may be called while a model runs."""
        loaded = self._loaded
        device = loaded.device if loaded else ""
        memory, memory_total = _memory(device)
        return RuntimeStatus(
            pid=os.getpid(),
            busy=self._busy,
            generator=loaded.key[0] if loaded else "",
            checkpoint=loaded.key[1] if loaded else "",
            device=device,
            device_name=loaded.device_name if loaded else "",
            memory=memory,
            memory_total=memory_total,
            idle_seconds=0.0 if self._busy else time.monotonic() - self._idle_since,
            versions=self._versions,
        )

    # The main thread

    def _do(self, id: Id, work: Callable[[], dict[str, Any]]) -> None:
        self._busy = True
        failure: XRayError | None = None
        result: dict[str, Any] = {}
        try:
            result = work()
        except Exception as error:  # the process boundary: send all errors as messages
            failure = typed_error(error)
            if failure.code == "cancelled":
                logger.info("request %s is cancelled", id)
            else:
                logger.exception("request %s failed", id)
        finally:
            self._busy = False
            self._may_hold_weights = True  # of a model, or of a network that cuts out
            del self._cancels[id]
        if failure is not None:
            # The tracebacks, also of the errors that led to this one, keep all tensors alive.
            failure.__traceback__ = failure.__cause__ = failure.__context__ = None
            _empty_caches()
        self._reply(id, result, failure)

    def _run(self, id: Id, params: GenerateParams, cancel: threading.Event) -> dict[str, Any]:
        shown = -PREVIEW_INTERVAL

        def report(progress: Progress) -> None:
            nonlocal shown
            if cancel.is_set():
                raise Cancelled
            file = ""
            if progress.preview is not None and time.monotonic() > shown + PREVIEW_INTERVAL:
                shown = time.monotonic()
                file = str(Path(params.folder) / f"{uuid.uuid4().hex}.npy")
                np.save(file, progress.preview)
            self._send(Request(protocol.PROGRESS, protocol.progress_to_params(id, progress, file)))

        start = time.monotonic()
        report(Progress("load", message="Loading the model"))
        system = find_system(params.settings.generator)
        system.check(params.inputs)
        check_inputs(params.inputs)
        loaded = self._load(params)
        logger.info("request %s: %s on %s", id, loaded.key[0], loaded.device_name)
        report(Progress("generate", message=f"Generating on {loaded.device_name}"))
        generated = loaded.generator.generate(params.inputs, params.settings, report)
        report(Progress("save", message="Handing the mesh over"))
        file = Path(params.folder) / f"{uuid.uuid4().hex}.npz"
        generated.save(file)
        seconds = time.monotonic() - start
        logger.info("request %s is done in %.2f s", id, seconds)
        return {"file": str(file), "seconds": seconds, "device": loaded.device}

    def _cut_out(self, id: Id, params: GenerateParams, cancel: threading.Event) -> dict[str, Any]:
        """Reply with the object as a generator would see it, without loading one."""
        from .images.cutout import cut_object
        from .images.framing import frame

        def report(progress: Progress) -> None:
            if cancel.is_set():
                raise Cancelled
            self._send(Request(protocol.PROGRESS, protocol.progress_to_params(id, progress)))

        if params.inputs.image is None:
            raise XRayError("missing_image", "There is no image to cut out.", "Choose an image.")
        check_inputs(params.inputs)
        cut = cut_object(params.inputs.image, params.settings, report)
        file = Path(params.folder) / f"{uuid.uuid4().hex}.npy"
        np.save(file, frame(cut.rgba, CUT_OUT_SIZE, fill=FILL))
        return {"file": str(file), "how": cut.how, "at_border": bool(reached_sides(cut.rgba))}

    def _fetch(
        self, id: Id, method: str, params: WeightsParams, cancel: threading.Event
    ) -> dict[str, Any]:
        """Reply with the offer of weights, or download the one that was confirmed."""
        from .checkpoints import download, make_offer
        from .images.cutout import online_allowed

        def report(progress: Progress) -> None:
            if cancel.is_set():
                raise Cancelled
            self._send(Request(protocol.PROGRESS, protocol.progress_to_params(id, progress)))

        online = online_allowed()
        if method == protocol.OFFER:
            return make_offer(params.name, online=online, progress=report).to_dict()
        folder = download(
            params.name,
            confirm=lambda offer: offer.revision == params.revision,
            online=online,
            progress=report,
        )
        return {"folder": str(folder)}

    def _load(self, params: GenerateParams) -> _Loaded:
        settings = params.settings
        key = (settings.generator, settings.checkpoint, settings.device)
        if self._loaded is not None and self._loaded.key == key:
            return self._loaded
        self._release()
        generator = load(settings.generator, settings.checkpoint or None, settings.device)
        device = str(generator.device)
        self._loaded = _Loaded(key, generator, device, _device_name(device))
        return self._loaded

    def _release(self) -> bool:
        """Release the weights. Returns whether any were loaded."""
        held, self._loaded = self._loaded is not None, None
        self._may_hold_weights = False
        networks: Any = sys.modules.get("runtime.images.networks")
        if networks is not None:
            networks.release_rembg()
        _empty_caches()
        if held:
            logger.info("the weights are released")
        return held

    # Any thread

    def _reply(
        self, id: Id, result: dict[str, Any] | None = None, error: XRayError | None = None
    ) -> None:
        if id is not None:  # notifications get no reply
            self._send(Response(id, result, error))

    def _send(self, message: Message) -> None:
        try:
            line = protocol.encode(message)
        except ValueError as error:  # a generator's result may be too long for one line
            logger.exception("a message cannot be sent")
            failure = XRayError("bad_reply", f"The runtime's reply cannot be sent ({error}).")
            line = protocol.encode(Response(getattr(message, "id", None), error=failure))
        try:
            with self._write_lock:
                self._replies.write(line)
                self._replies.flush()
        except OSError:
            # The other end is closed. The reader's thread also notices that, and ends the process.
            logger.info("the other end no longer reads the replies")


def _empty_caches() -> None:
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _memory(device: str) -> tuple[int, int]:
    """Bytes in use and in total. Only asks torch if a generator, and therefore torch, is loaded."""
    torch: Any = sys.modules.get("torch")
    if device.startswith("cuda"):
        total = torch.cuda.get_device_properties(device).total_memory
        return int(torch.cuda.memory_reserved(device)), int(total)
    if device.startswith("mps"):
        total = torch.mps.recommended_max_memory()
        return int(torch.mps.current_allocated_memory()), int(total)
    if sys.platform != "linux":
        return 0, 0
    page = os.sysconf("SC_PAGE_SIZE")
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    return resident * page, os.sysconf("SC_PHYS_PAGES") * page


def _device_name(device: str) -> str:
    torch: Any = sys.modules.get("torch")
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    if device.startswith("mps"):
        return f"Apple GPU ({platform.machine()})"
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return f"CPU ({line.partition(':')[2].strip()})"
    return f"CPU ({platform.processor() or platform.machine()})"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in REPORTED_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
