"""Long work that keeps Blender's window alive: one queue and one timer on the main thread.

Work is a generator that yields its `Progress` often and returns its result. It is resumed from a
timer, so it may touch bpy. To cancel it, `Cancelled` is raised at its yield; it may catch that,
wind down over further yields, and must end by raising it. Jobs outlive File > New, which ends
modal operators.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import bpy

from ..xray_addon.errors import XRayError
from ..xray_addon.progress import Cancelled, Progress, ProgressCallback, State, ignore_progress

Steps = Generator[Progress, None, Any]

POLL_INTERVAL = 0.05  # s between two steps of work that waits for a process

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Task:
    """One piece of work in the queue.

    label : for people. steps : the work. interval : s between two steps.
    undo : message of the undo step that its end is worth; "" for none.
    operator : class name of the modal operator that watches it and pushes that undo step.
    error : set when `state` is failed. result : set when it is done.
    """

    label: str
    steps: Steps
    interval: float = 0.0
    undo: str = ""
    operator: str = ""
    state: State = State.QUEUED
    progress: Progress = field(default_factory=lambda: Progress("queued"))
    result: Any = None
    error: XRayError | None = None
    cancelling: bool = False

    @property
    def finished(self) -> bool:
        """Whether `state` is final."""
        return self.state not in (State.QUEUED, State.RUNNING)

    def advance(self) -> None:
        """Run to the next yield. An error that is no XRayError is a bug: it fails and rises."""
        failed = True
        cancelling = self.cancelling and self.state is State.RUNNING
        try:
            if self.cancelling and self.state is State.QUEUED:
                self.steps.close()
                raise Cancelled
            self.state = State.RUNNING
            self.progress = self._throw() if cancelling else next(self.steps)
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
_last_failed: Task | None = None


def submit(task: Task) -> Task:
    """Queue `task`; it runs when those before it are through."""
    global _last_failed
    _last_failed = None
    queue.append(task)
    _start_timer()
    return task


def cancel(task: Task) -> None:
    """Ask `task` to end; it does so at its next step."""
    task.cancelling = True


def last_failed() -> Task | None:
    """The last task if it failed; None after a good one and while one runs."""
    return _last_failed


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
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    _show(None)


def _start_timer() -> None:
    if not bpy.app.timers.is_registered(_tick):
        bpy.app.timers.register(_tick, persistent=True)


def _tick() -> float | None:
    """One step of the first task. Blender calls it again after the returned seconds."""
    global _last_failed
    task = queue[0]
    before = task.progress
    try:
        task.advance()
    except Exception:  # raised on, it would end the timer, and with it all that waits
        logger.exception("%s stopped because of a bug", task.label)
    finally:
        if task.finished:
            queue.remove(task)
            _last_failed = task if task.error else None
            if task.state is State.DONE and task.undo and not _is_watched(task):
                _push_undo(task.undo)
        if task.finished or task.progress != before:
            _show(queue[0] if queue else None)
    return task.interval if queue else None


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


def describe(progress: Progress) -> str:
    """One line for people, e.g. "Sampling 3/25"."""
    text = progress.message or progress.stage
    text = text[:1].upper() + text[1:]
    return f"{text} {progress.step}/{progress.of}" if progress.of else text


def _show(task: Task | None) -> None:
    """Put the progress into the status bar and redraw."""
    text = f"{task.label}: {describe(task.progress)}    Esc: Cancel" if task else None
    manager = bpy.context.window_manager
    for window in manager.windows if manager else ():
        # It acts on the context's window, and a timer's context has none after File > New.
        with bpy.context.temp_override(window=window):
            window.workspace.status_text_set(text)
    redraw()


def redraw() -> None:
    """Draw the sidebars and the preferences anew."""
    manager = bpy.context.window_manager
    for window in manager.windows if manager else ():
        for area in window.screen.areas:
            if area.type in ("VIEW_3D", "PREFERENCES"):
                area.tag_redraw()
