"""This Blender's only runtime: its environment, its process and its jobs.

Blender's process never imports torch or the runtime. It installs the runtime, starts it and talks
to it.
"""

from __future__ import annotations

import platform
import threading
import time
import tomllib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy

from ...xray_addon.errors import XRayError
from ...xray_addon.process.child import EXTENSION_FOLDER
from ...xray_addon.process.client import RuntimeClient
from ...xray_addon.process.environment import RuntimeEnvironment
from ...xray_addon.progress import Cancelled, Progress
from ...xray_addon.systems import weights
from ...xray_addon.systems.weights import Offer, megabytes, missing
from ..properties import absolute_path, chosen_system, preferences, system_settings
from ..tasks import jobs

if TYPE_CHECKING:
    from os import PathLike

    from ...xray_addon.process.client import Job
    from ...xray_addon.process.environment import Check, Plan
    from ...xray_addon.settings.generate import GenerateSettings
    from ...xray_addon.systems.system import HandFile, Inputs

WATCH_INTERVAL = 1.0  # s between checks of the process while no task checks it
STATUS_INTERVAL = 10.0  # s between status requests
QUIT_TIMEOUT = 5.0  # s for an install to stop, and to bring back what was there before it
REPORTED = ("python", "torch", "diffusers", "numpy", "rembg", "onnxruntime")


@dataclass(frozen=True)
class Command:
    """A program that speaks the runtime's protocol, used instead of the installed runtime."""

    python: str
    arguments: tuple[str, ...]


# Set by tests, and by developers who run another copy of the runtime.
command: Command | None = None

_client: RuntimeClient | None = None
_seen: tuple[Any, ...] = ()  # the state of the process for the panel, as of the last `_watch`
_asked_at = 0.0  # when `_watch` last asked for the status


def environment() -> RuntimeEnvironment:
    """The environment in the preferences' folder, or in the default folder."""
    chosen = preferences()
    folder = chosen.runtime_folder if chosen else ""
    return RuntimeEnvironment(absolute_path(folder) if folder else None)


def is_available() -> bool:
    """Whether a runtime can be started."""
    return command is not None or environment().is_installed


def poll_available(operator: type[bpy.types.Operator]) -> bool:
    """Whether a runtime can be started; if not, `operator` tells the user to install it."""
    if is_available():
        return True
    operator.poll_message_set("Install the runtime first (sidebar, X-Ray, Generate)")
    return False


def is_running() -> bool:
    """Whether the process is alive."""
    return _client is not None and _client.is_running


def client() -> RuntimeClient:
    """The client, created at the first call. Raises XRayError `not_installed`."""
    global _client
    if _client is None:
        if command is not None:
            _client = RuntimeClient(command.python, arguments=command.arguments)
        else:
            found = environment()
            if not found.is_installed:
                raise XRayError(
                    "not_installed",
                    "The model runtime is not installed.",
                    "Press Install Runtime in the sidebar's X-Ray tab.",
                )
            serve = ["-m", "runtime", "serve"]
            if chosen := preferences():
                serve += ["--idle", str(60 * chosen.release_after)]
            _client = RuntimeClient(found.python, found.runtime_log, arguments=serve)
    # Whether weights may be downloaded, and their folder; both take effect at the next start.
    _client.online = bool(bpy.app.online_access)
    _client.checkpoints = checkpoint_folder()
    return _client


def checkpoint_folder() -> str:
    """The preferences' folder for downloaded weights; "" for the default folder."""
    chosen = preferences()
    folder = chosen.checkpoint_folder if chosen else ""
    return str(absolute_path(folder)) if folder else ""


def missing_weights(scene: Any) -> list[str]:
    """Names of weights that the chosen generator needs and that are not downloaded."""
    chosen = preferences()
    if chosen is None:
        return []
    system = chosen_system()
    checkpoint = bpy.path.abspath(system_settings(scene.xray.generate, system).checkpoint)
    return missing(system, checkpoint, checkpoint_folder())


def missing_by_hand(scene: Any) -> list[HandFile]:
    """The files that the chosen system needs and that the user must download in a browser."""
    if preferences() is None:
        return []
    system = chosen_system()
    own = system_settings(scene.xray.generate, system)
    return weights.missing_by_hand(
        system, own, bpy.path.abspath(own.checkpoint), checkpoint_folder()
    )


def folder_by_hand(scene: Any) -> str:
    """Where the chosen system looks for those files."""
    system = chosen_system()
    own = system_settings(scene.xray.generate, system)
    return bpy.path.abspath(own.checkpoint) or str(weights.hand_folder(system, checkpoint_folder()))


def current_client() -> RuntimeClient | None:
    """The client, or None."""
    return _client


def stop() -> None:
    """Stop the process and drop the client, so that the next one uses new preferences."""
    global _client
    if bpy.app.timers.is_registered(_watch):
        bpy.app.timers.unregister(_watch)
    if _client is not None:
        _client.stop()
        _client = None


def shut_down() -> None:
    """Stop everything that this module started."""
    stop()


def state() -> str:
    """One of "off", "starting", "ready", "busy" and "lost" (it ended by itself)."""
    if _client is None or not _client.is_running:
        return "off" if _client is None or _client.error is None else "lost"
    if not _client.is_ready:
        return "starting"
    status = _client.latest_status
    return "busy" if _client.jobs or (status is not None and status.busy) else "ready"


def check_steps() -> jobs.Steps:
    """Test the installation and start the process; the result is a report (str) for people.

    Raises XRayError.
    """
    check = None
    if command is None:
        trying = Progress("check", message="testing the runtime")
        check = yield from jobs.in_thread(environment().check, trying)
    yield from start_steps()
    running = client()
    while running.is_running and running.latest_status is None:
        running.poll()
        yield Progress("check", message="asking the runtime")
    return health_report(check)


def health_report(check: Check | None) -> str:
    """Versions, device, memory, driver, model and the process's state, one per line.

    check : the result of the test; None without an installed environment.
    """
    manifest = tomllib.loads((EXTENSION_FOLDER / "blender_manifest.toml").read_text("utf-8"))
    lines = [
        f"X-Ray {manifest['version']}, Blender {bpy.app.version_string}",
        f"System: {platform.platform()}",
    ]
    if check is not None:
        holds = f", {megabytes(check.memory)}" if check.memory else ""
        driver = f", driver {check.driver}" if check.driver else ""
        lines.append(f"Device: {check.device}, {check.device_name}{holds}{driver}")
        found = (f"{name} {check.versions[name]}" for name in REPORTED if name in check.versions)
        lines.append(", ".join(found))
        size = environment().size
        on_disk = f", {megabytes(size)} on disk" if size else ""
        lines.append(f"Runtime: {environment().folder}{on_disk}")
    chosen = preferences()
    status = _client.latest_status if _client else None
    model = chosen.generator if chosen else ""
    loaded = f"loaded on {status.device_name}" if status and status.device else "not loaded"
    lines.append(f"Model: {model}, {loaded}")
    memory = f", {megabytes(status.memory)} in use" if status and status.memory else ""
    lines.append(f"Process: {state()}{memory}")
    if _client is not None and _client.error is not None:
        lines.append(f"Last error: {_client.error}")
    return "\n".join(lines)


def remove_steps() -> jobs.Steps:
    """Stop the process and remove the installation. Raises XRayError `busy`."""
    stop()
    removing = Progress("remove", message="removing the runtime")
    return jobs.in_thread(environment().uninstall, removing)


@lru_cache
def _planning(device: str) -> Future[Plan]:
    threads = ThreadPoolExecutor(1, "xray-plan")  # asking the driver may take a second
    plan = threads.submit(RuntimeEnvironment().plan, device)
    threads.shutdown(wait=False)
    return plan


def install_plan() -> Plan | None:
    """The download of an install; None until it is known. Raises XRayError.

    Fast enough to be called while drawing.
    """
    chosen = preferences()
    planning = _planning(chosen.install_device if chosen else "auto")
    return planning.result() if planning.done() else None


def start_steps() -> jobs.Steps:
    """Start the process and wait until it answers. Raises XRayError."""
    running = client()
    running.start()
    _start_watching()
    while not running.is_ready:
        running.poll()
        if running.error is not None:
            raise running.error
        if not running.is_running:  # stopped in the meantime
            raise Cancelled
        try:
            yield Progress("starting", message="starting the runtime")
        except Cancelled:
            stop()
            raise


def generate_steps(inputs: Inputs | str | PathLike[str], settings: GenerateSettings) -> jobs.Steps:
    """The `Generated` of `inputs`, or of a single image file.

    Raises XRayError, and `Cancelled` after the job has ended.
    """
    running = client()
    generated = yield from _follow(running, running.submit(inputs, settings))
    return generated


def cut_out_steps(image: str | PathLike[str], settings: GenerateSettings) -> jobs.Steps:
    """The `CutOut` of the file `image`. Raises as `generate_steps`."""
    running = client()
    cut = yield from _follow(running, running.cut_out(image, settings))
    return cut


def offer_steps(name: str) -> jobs.Steps:
    """The `Offer` of the hub for the weights called `name`. Raises as `generate_steps`."""
    running = client()
    offer = yield from _follow(running, running.ask_offer(name))
    return Offer.from_dict(offer)


def download_steps(name: str, revision: str) -> jobs.Steps:
    """Download the weights called `name` as offered; the result is their folder (a `Path`).

    Raises as `generate_steps`.
    """
    running = client()
    answer = yield from _follow(running, running.download(name, revision))
    return Path(answer["folder"])


def _follow(running: RuntimeClient, job: Job) -> jobs.Steps:
    """The result of `job`."""
    _start_watching()
    while not job.finished:
        running.poll()
        try:
            yield job.progress
        except Cancelled:
            running.cancel(job)
    if job.error is not None:
        raise job.error
    if job.result is None:
        raise Cancelled
    running.request_status()
    return job.result


def _start_watching() -> None:
    # Without a window timers never fire, and a remaining timer keeps Python from exiting.
    if not bpy.app.background and not bpy.app.timers.is_registered(_watch):
        bpy.app.timers.register(_watch, first_interval=WATCH_INTERVAL, persistent=True)


def _watch() -> float | None:
    """Process the runtime's messages between tasks and notice its end; stops with the process."""
    global _seen, _asked_at
    if _client is None:
        return None
    _client.poll()
    now = time.monotonic()
    if now >= _asked_at + STATUS_INTERVAL:
        _asked_at = now
        _client.request_status()
    status = _client.latest_status
    if status is not None:
        status = replace(status, idle_seconds=0.0)  # always changes, but is not shown
    seen = (_client.is_running, _client.is_ready, _client.error, status)
    if seen != _seen:
        _seen = seen
        jobs.redraw()
    return WATCH_INTERVAL if _client.is_running else None


def install_steps(*, online: bool, wheelhouse: str | Path | None, device: str) -> jobs.Steps:
    """Install the runtime; the result is a `Check`. Raises XRayError and `Cancelled`.

    The work runs in its own thread, which never uses bpy.
    """
    if current_client() is not None:
        stop()  # its files will be replaced
    target = environment()
    latest = Progress("install", message="preparing")
    stopping = threading.Event()
    outcome: Future[Check] = Future()

    def record(progress: Progress) -> None:
        nonlocal latest
        latest = progress
        if stopping.is_set():
            raise Cancelled

    def work() -> None:
        try:
            outcome.set_result(
                target.install(online=online, wheelhouse=wheelhouse, device=device, progress=record)
            )
        except XRayError as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=work, name="xray-install", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            try:
                yield latest
            except Cancelled:
                stopping.set()
    finally:
        stopping.set()
        thread.join(QUIT_TIMEOUT)  # if Blender quits or the extension is disabled
    if not outcome.done():
        raise XRayError(
            "internal",
            "The install stopped because of a bug.",
            "Please report it with the text in Blender's console.",
            str(target.log),
        )
    return outcome.result()


def install_arguments(online: bool) -> dict[str, Any]:
    """The arguments of `install_steps`, from the preferences."""
    chosen = preferences()
    wheelhouse = chosen.wheelhouse if chosen else ""
    return {
        "online": online,
        "wheelhouse": absolute_path(wheelhouse) if wheelhouse else None,
        "device": chosen.install_device if chosen else "auto",
    }
