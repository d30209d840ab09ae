"""Long work that keeps Blender's window alive: one queue and one timer on the main thread.

Work is a generator that yields its `Progress` often and returns its result. It is resumed from a
timer, so it may touch bpy. To cancel it, `Cancelled` is raised at its yield; it may catch that,
wind down over further yields, and must end by raising it. Jobs outlive File > New, which ends
modal operators.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from numpy.typing import NDArray

from ...xray_addon.errors import XRayError, error_code
from ...xray_addon.progress import Cancelled, Progress, ProgressCallback, State, ignore_progress
from ..interface.translation import translated

Steps = Generator[Progress, None, Any]

POLL_INTERVAL = 0.05  # s between two steps of work that waits for a process
SHOW_INTERVAL = 1.0  # s between two redraws while nothing new is heard: the time left counts down

LOG_LINES = 60  # of a log, in the details of an error

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Task:
    """One piece of work in the queue.

    label : for people. steps : the work. interval : s between two steps.
    undo : message of the undo step that its end is worth; "" for none.
    operator : class name of the modal operator that watches it.
    batch : what tasks have in common that were asked for at once. The operator pushes the undo
        step of the last one.
    error : set when `state` is failed. result : set when it is done.
    preview : the latest picture of what is being made, (H, W, 4) uint8.
    """

    label: str
    steps: Steps
    interval: float = 0.0
    undo: str = ""
    operator: str = ""
    batch: object = None
    state: State = State.QUEUED
    progress: Progress = field(default_factory=lambda: Progress("queued"))
    result: Any = None
    error: XRayError | None = None
    cancelling: bool = False
    preview: NDArray[np.uint8] | None = None
    _paced: tuple[Progress, float] | None = None  # the stage's first report, and when that was
    _reported_at: float = 0.0  # when the latest report came

    @property
    def seconds_left(self) -> float | None:
        """Of the stage that it is in, by its pace so far; None while there is none to tell."""
        if self._paced is None:
            return None
        first, began = self._paced
        done = self.progress.step - first.step
        if done <= 0 or not self.progress.of:
            return None
        left = (self._reported_at - began) / done * (self.progress.of - self.progress.step)
        return max(0.0, left - (time.monotonic() - self._reported_at))

    def _record(self, progress: Progress) -> None:
        if progress.preview is not None:
            self.preview = progress.preview
        if progress == self.progress:
            return
        self._reported_at = time.monotonic()
        if self._paced is None or progress.stage != self.progress.stage:
            self._paced = (progress, self._reported_at)
        self.progress = progress

    @property
    def finished(self) -> bool:
        """Whether `state` is final."""
        return self.state not in (State.QUEUED, State.RUNNING)

    def advance(self) -> None:
        """Run to the next yield. An error that is no XRayError is a bug: it fails and rises."""
        failed = True
        cancelling = self.cancelling
        try:
            self.state = State.RUNNING
            self._record(self._throw() if cancelling else next(self.steps))
            failed = False
        except StopIteration as end:
            self.state, self.result, failed = State.DONE, end.value, False
        except Cancelled:
            self.state, failed = State.CANCELLED, False
        except XRayError as error:
            self.state, self.error, failed = State.FAILED, error, False
        finally:
            if failed:
                self.state = State.FAILED
                self.error = XRayError(
                    "internal",
                    f"{self.label} stopped because of a bug.",
                    "Please report it with the text in Blender's console.",
                )

    def _throw(self) -> Progress:
        """Raise `Cancelled` inside, once; later steps let it wind down."""
        if self.progress.stage == "cancelling":
            after = next(self.steps)
        else:
            after = self.steps.throw(Cancelled())
        return Progress("cancelling", message=after.message)


queue: list[Task] = []  # what is not finished; the first one runs
failed: list[Task] = []  # what has failed since the queue was last empty and something came
_paused = False
_shown_at = 0.0


def submit(task: Task) -> Task:
    """Queue `task`; it runs when those before it are through."""
    if not queue:
        failed.clear()
    queue.append(task)
    resume()
    return task


def cancel(task: Task) -> None:
    """End `task`: at its next step where it runs, else right now."""
    if task.state is State.QUEUED and task in queue:
        task.steps.close()
        task.state = State.CANCELLED
        queue.remove(task)
        show()
    else:
        task.cancelling = True


def cancel_all() -> None:
    """End everything, what waits before what runs."""
    for task in reversed(tuple(queue)):
        cancel(task)


def move(task: Task, by: int) -> None:
    """Let waiting `task` run so many places later (or earlier, below 0)."""
    first = 1 if queue[0].state is State.RUNNING else 0
    if task.state is State.QUEUED:
        place = queue.index(task) + by
        queue.remove(task)
        queue.insert(max(first, place), task)
        show()


def is_paused() -> bool:
    """Whether the queue waits for `resume`, because the runtime failed twice in a row."""
    return _paused and bool(queue)


def resume() -> None:
    """Go on with what waits."""
    global _paused
    _paused = False
    if queue and not bpy.app.timers.is_registered(_tick):
        bpy.app.timers.register(_tick, persistent=True)
    show()


def run(
    steps: Steps, on_progress: ProgressCallback = ignore_progress, interval: float = 0.0
) -> Any:
    """Do the work here and now, for scripts and the command line; returns its result.

    Ctrl-C cancels it. Raises what the work raises, `Cancelled` too.
    """
    interrupted = False
    while True:
        try:
            on_progress(steps.throw(Cancelled()) if interrupted else next(steps))
            interrupted = False
            time.sleep(interval)
        except StopIteration as end:
            return end.value
        except KeyboardInterrupt:
            interrupted = True


def in_thread(work: Callable[[], Any], progress: Progress) -> Steps:
    """The result of `work`, which must not touch bpy, while Blender goes on.

    A cancel is raised when it has ended.
    """
    threads = ThreadPoolExecutor(1, "xray-work")
    outcome = threads.submit(work)
    threads.shutdown(wait=False)
    cancelled = False
    while not outcome.done():
        try:
            yield progress
        except Cancelled:
            cancelled = True
    if cancelled:
        raise Cancelled
    return outcome.result()


def shut_down() -> None:
    """Cancel everything and take the timer back."""
    for task in queue:
        task.steps.close()
        task.state = State.CANCELLED
    queue.clear()
    failed.clear()
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    show()


def _tick() -> float | None:
    """One step of the first task. Blender calls it again after the returned seconds."""
    if not queue:  # all that waited was cancelled
        return None
    task = queue[0]
    before = (task.progress, task.preview)
    try:
        task.advance()
    except Exception:  # raised on, it would end the timer, and with it all that waits
        logger.exception("%s stopped because of a bug", task.label)
    finally:
        if task.finished:
            _end(task)
        new = before[0] != task.progress or before[1] is not task.preview
        if task.finished or new or time.monotonic() > _shown_at + SHOW_INTERVAL:
            show()
    return task.interval if queue and not _paused else None


def _end(task: Task) -> None:
    global _paused
    queue.remove(task)
    if task.error is not None:
        # A process that dies is started anew, but not for ever.
        twice = bool(failed) and all(map(_is_runtimes, (failed[-1], task)))
        _paused = twice and failed[-1].batch is task.batch
        failed.append(task)
    last = task.batch is None or all(other.batch is not task.batch for other in queue)
    if task.state is State.DONE and task.undo and not (last and _is_watched(task)):
        _push_undo(task.undo)


def _is_runtimes(task: Task) -> bool:
    """Whether the process failed, and not the work."""
    return task.error is not None and task.error.code.startswith("runtime_")


def _is_watched(task: Task) -> bool:
    return any(
        operator.bl_idname == task.operator
        for window in bpy.context.window_manager.windows
        for operator in window.modal_operators
    )


def _push_undo(message: str) -> None:
    for window in list(bpy.context.window_manager.windows)[:1]:
        with bpy.context.temp_override(window=window):
            bpy.ops.ed.undo_push(message=message)


def failure_details() -> str:
    """What has failed and why, with the end of each log and the versions, for a bug report."""
    system = f"Blender {bpy.app.version_string}, {platform.platform()}"
    parts = [f"X-Ray, {system}"]
    logs: list[str] = []
    for task in failed:
        if task.error is not None:
            page = error_code(task.error.code).page
            parts.append(f"{task.label}: {task.error.code} ({page}): {task.error}")
            logs.append(task.error.log)
    for log in dict.fromkeys(filter(None, logs)):
        path = Path(log)
        text = path.read_text("utf-8", "replace") if path.is_file() else ""
        parts.append(f"--- {log}\n" + "\n".join(text.splitlines()[-LOG_LINES:]))
    return "\n\n".join(parts) + "\n"


def describe(progress: Progress) -> str:
    """One line for people, e.g. "Sampling 3/25"."""
    text = translated(progress.message or progress.stage)
    text = text[:1].upper() + text[1:]
    return f"{text} {progress.step}/{progress.of}" if progress.of else text


def show() -> None:
    """Put the progress into the status bar and redraw."""
    global _shown_at
    _shown_at = time.monotonic()
    text = None
    if queue and not _paused:
        text = f"{queue[0].label}: {describe(queue[0].progress)}    Esc: Cancel"
    manager = bpy.context.window_manager
    for window in manager.windows if manager else ():
        # It acts on the context's window, and a timer's context has none after File > New.
        with bpy.context.temp_override(window=window):
            window.workspace.status_text_set(text)
    redraw()


def redraw() -> None:
    """Draw the sidebars and the preferences anew, and no view of the scene."""
    manager = bpy.context.window_manager
    for window in manager.windows if manager else ():
        for area in window.screen.areas:
            for region in area.regions if area.type in ("VIEW_3D", "PREFERENCES") else ():
                if region.type == ("UI" if area.type == "VIEW_3D" else "WINDOW"):
                    region.tag_redraw()
