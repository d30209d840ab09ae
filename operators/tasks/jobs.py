"""Runs long work while Blender stays responsive: one queue and one timer on the main thread.

Work is a generator that yields its `Progress` often and returns its result. A timer resumes it, so
it may use bpy. To cancel it, `Cancelled` is raised at its yield. It may catch that and clean up
over further yields, and must then raise it again. Tasks survive File > New, which ends modal
operators.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import bpy
import numpy as np
from numpy.typing import NDArray

from ...xray_addon.errors import XRayError, error_code
from ...xray_addon.progress import Cancelled, Progress, ProgressCallback, State, ignore_progress
from ..interface.translation import translated
from . import person

Steps = Generator[Progress, None, Any]
Report = TypeVar("Report")

POLL_INTERVAL = 0.05  # s between steps of work that waits for a process
SHOW_INTERVAL = 1.0  # s between redraws without new progress, for the time left or elapsed

LOG_LINES = 60  # last lines of a log that error details include

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Task:
    """One piece of work in the queue.

    label : for people. steps : the work. interval : s between two steps.
    undo : message of the undo step pushed when it is done; "" for none.
    operator : class name of the modal operator that watches it.
    batch : shared by tasks that were submitted together. The operator pushes the undo step of the
        last one.
    circumstances : what may cause a failure, e.g. the settings; anything that can be compared.
        A failure is forgotten when they change.
    error : set when `state` is failed. result : set when it is done.
    preview : the latest picture of the unfinished result, (H, W, 4) uint8.
    """

    label: str
    steps: Steps
    interval: float = 0.0
    undo: str = ""
    operator: str = ""
    batch: object = None
    circumstances: Callable[[], Any] = tuple
    state: State = State.QUEUED
    progress: Progress = field(default_factory=lambda: Progress("queued"))
    result: Any = None
    error: XRayError | None = None
    cancelling: bool = False
    preview: NDArray[np.uint8] | None = None
    _failed_in: tuple[Any] | None = None  # the circumstances in which the failure was shown
    _paced: tuple[Progress, float] | None = None  # the stage's first report and its time
    _reported_at: float = 0.0  # time of the latest report

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until the current stage ends; None if not known yet."""
        if self._paced is None:
            return None
        first, began = self._paced
        done = self.progress.step - first.step
        if done <= 0 or not self.progress.of:
            return None
        left = (self._reported_at - began) / done * (self.progress.of - self.progress.step)
        return max(0.0, left - (time.monotonic() - self._reported_at))

    @property
    def seconds_elapsed(self) -> float:
        """Seconds since the current stage began."""
        return time.monotonic() - self._paced[1] if self._paced is not None else 0.0

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
        """Run to the next yield. An error other than XRayError fails the task and is re-raised."""
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
        """Raise `Cancelled` in the work once; later steps let it clean up."""
        if self.progress.stage == "cancelling":
            after = next(self.steps)
        else:
            after = self.steps.throw(Cancelled())
        return Progress("cancelling", message=after.message)


queue: list[Task] = []  # unfinished tasks; the first one is running
failed: list[Task] = []  # tasks that failed; cleared when a task is added to an empty queue
_paused = False
_shown_at = 0.0


def submit(task: Task) -> Task:
    """Queue `task`; it runs after the tasks before it."""
    if not queue:
        failed.clear()
    queue.append(task)
    resume()
    return task


def dismiss(task: Task) -> None:
    """Forget that `task` failed."""
    failed.remove(task)
    redraw()


def current_failures() -> list[Task]:
    """The tasks that failed in circumstances that have not changed; the others are forgotten."""
    for task in tuple(failed):
        now = (task.circumstances(),)
        if task._failed_in is None:  # it is shown for the first time
            task._failed_in = now
        elif task._failed_in != now:
            failed.remove(task)
    return failed


def cancel(task: Task) -> None:
    """Cancel `task`: at its next step if it is running, otherwise at once."""
    if task.state is State.QUEUED and task in queue:
        task.steps.close()
        task.state = State.CANCELLED
        queue.remove(task)
        show()
    else:
        task.cancelling = True


def cancel_running() -> bool:
    """Cancel the task that runs or is about to; False if none is, or if it is being cancelled
    already."""
    if not queue or is_paused() or queue[0].cancelling:
        return False
    cancel(queue[0])
    return True


def cancel_all() -> None:
    """Cancel all tasks, the waiting ones first."""
    for task in reversed(tuple(queue)):
        cancel(task)


def waiting() -> list[Task]:
    """The tasks that wait: all of a paused queue, otherwise those behind the first one."""
    return queue[:] if is_paused() else queue[1:]


def can_move(task: Task, by: int) -> bool:
    """Whether `move` would change the task's place."""
    place = queue.index(task)
    return task.state is State.QUEUED and _moved(place, by) != place


def move(task: Task, by: int) -> None:
    """Move the waiting `task` later in the queue by `by` places (earlier if negative)."""
    if task.state is State.QUEUED:
        place = _moved(queue.index(task), by)
        queue.remove(task)
        queue.insert(place, task)
        show()


def _moved(place: int, by: int) -> int:
    """The place `by` places behind `place`, within those of the tasks that have not begun."""
    first = 1 if queue[0].state is State.RUNNING else 0
    return min(max(first, place + by), len(queue) - 1)


def is_paused() -> bool:
    """Whether the queue waits for `resume` because the runtime failed twice in a row."""
    return _paused and bool(queue)


def resume() -> None:
    """Continue with the waiting tasks."""
    global _paused
    _paused = False
    if queue and not bpy.app.timers.is_registered(_tick):
        bpy.app.timers.register(_tick, persistent=True)
    show()


def run(
    steps: Steps, on_progress: ProgressCallback = ignore_progress, interval: float = 0.0
) -> Any:
    """Run the work to its end, for scripts and the command line; returns its result.

    Ctrl-C cancels it. Raises whatever the work raises, including `Cancelled`.
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


def in_window(steps: Steps, window: Any) -> Steps:
    """The same work, each step in the context of `window` while that is one of several.

    Otherwise the timer's context is that of the first window, which may show another scene.
    """
    pointer = window.as_pointer()
    stop: Cancelled | None = None
    try:
        while True:
            with _context_of(pointer):
                try:
                    progress = next(steps) if stop is None else steps.throw(stop)
                except StopIteration as end:
                    return end.value
            stop = None
            try:
                yield progress
            except Cancelled as cancelled:
                stop = cancelled
    finally:
        steps.close()


def _context_of(pointer: int) -> AbstractContextManager[Any]:
    windows: list[Any] = list(bpy.context.window_manager.windows)
    found = [window for window in windows if window.as_pointer() == pointer]
    if not found or len(windows) == 1:
        return nullcontext()
    override: AbstractContextManager[Any] = bpy.context.temp_override(window=found[0])
    return override


def in_thread(work: Callable[[], Any], progress: Progress) -> Steps:
    """Run `work`, which must not use bpy, in a thread while Blender stays responsive.

    If it is cancelled, `Cancelled` is raised after the work has ended.
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


def reporting(steps: Generator[Any, None, Any], progress: Report) -> Generator[Report, None, Any]:
    """Yield `progress` for each of the steps, whose result is the result.

    The steps are closed on cancelling.
    """
    try:
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value
            yield progress
    finally:
        steps.close()


def shut_down() -> None:
    """Cancel all tasks and remove the timer."""
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
    if not queue:  # all tasks were cancelled
        return None
    task = queue[0]
    before = (task.progress, task.preview)
    try:
        task.advance()
    except Exception:  # if re-raised, it would end the timer and strand the waiting tasks
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
        # A process that dies is restarted, but not endlessly.
        twice = bool(failed) and all(map(_is_runtimes, (failed[-1], task)))
        _paused = twice and failed[-1].batch is task.batch
        failed.append(task)
    elif task.state is State.DONE:
        failed[:] = [t for t in failed if t.operator != task.operator or t.batch is task.batch]
    last = task.batch is None or all(other.batch is not task.batch for other in queue)
    if task.state is not State.DONE or not task.undo or (last and _is_watched(task)):
        return
    # During a transform, for example, this will be part of the next undo step.
    if not person.is_in_operator():
        _push_undo(task.undo)


def _is_runtimes(task: Task) -> bool:
    """Whether the runtime process failed, rather than the work itself."""
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
    """Text for a bug report: the failed tasks, the ends of their logs, and the versions."""
    system = f"Blender {bpy.app.version_string}, {platform.platform()}"
    parts = [f"X-Ray, {system}"]
    logs: list[str] = []
    for task in failed:
        if task.error is not None:
            page = error_code(task.error.code).page
            told = f"{task.label}: {task.error.code} ({page}): {task.error}"
            parts.append("\n".join(filter(None, (told, task.error.details))))
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


def describe_running(task: Task) -> str:
    """`describe` of the task's progress, with `describe_time`."""
    text, time_text = describe(task.progress), describe_time(task)
    return f"{text}, {time_text}" if time_text else text


def describe_time(task: Task) -> str:
    """The time left or, if unknown, the time elapsed; "" in the first second."""
    left = task.seconds_left
    if left is not None:
        return translated("{} left").format(_clock(left))
    return _clock(task.seconds_elapsed) if task.seconds_elapsed >= 1 else ""


def _clock(seconds: float) -> str:
    """Minutes and seconds, e.g. "1:05"."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def show() -> None:
    """Show the progress in the status bar and redraw."""
    global _shown_at
    _shown_at = time.monotonic()
    text = None
    if queue and not _paused:
        text = f"{queue[0].label}: {describe_running(queue[0])}    Esc: Cancel"
    manager = bpy.context.window_manager
    for window in manager.windows if manager else ():
        # This needs a window in the context, and after File > New a timer's context has none.
        with bpy.context.temp_override(window=window):
            window.workspace.status_text_set(text)
    redraw()


def redraw() -> None:
    """Redraw the sidebars and the preferences, but not the 3D views."""
    manager = bpy.context.window_manager
    for window in manager.windows if manager else ():
        for area in window.screen.areas:
            for region in area.regions if area.type in ("VIEW_3D", "PREFERENCES") else ():
                if region.type == ("UI" if area.type == "VIEW_3D" else "WINDOW"):
                    region.tag_redraw()
