"""Operators that start tasks: modal in a window, blocking without one."""

from __future__ import annotations

from typing import Any

import bpy

from ...xray_addon.errors import XRayError
from ...xray_addon.progress import Cancelled, State
from . import jobs, person

OperatorResult = set[Any]  # {"FINISHED"}, {"CANCELLED"} or {"RUNNING_MODAL"}

WATCH_INTERVAL = 0.1  # s
# In a window a report of a failure is short, without a popup: the panel has the error and a remedy.
SEE_PANEL = "The tab X-Ray in the sidebar says why"


class TaskOperator(bpy.types.Operator):
    """Runs `work(context)` as a task, or several `tasks`, and reports how they ended.

    Subclasses define `bl_label`, `work` (or `tasks`) and `summary`, and `circumstances` if what
    they do depends on something. Esc cancels the running task.
    """

    bl_idname = "xray.task"
    bl_label = "X-Ray Task"
    interval = jobs.POLL_INTERVAL
    after_cancel = ""  # what to tell when it was cancelled, as a sentence

    def work(self, context: bpy.types.Context) -> jobs.Steps:
        """The work. Raises XRayError if it cannot start."""
        raise NotImplementedError

    def tasks(self, context: bpy.types.Context) -> list[tuple[str, jobs.Steps]]:
        """The label and the work of each task. Raises XRayError if one cannot start."""
        return [(self.bl_label, self.work(context))]

    @classmethod
    def circumstances(cls, _context: bpy.types.Context) -> Any:
        """What may cause a failure: panels show it until this changes."""
        return ()

    def summary(self, result: Any) -> tuple[str, str]:
        """Report type ("INFO", "WARNING") and text for the result."""
        raise NotImplementedError

    def execute(self, context: bpy.types.Context) -> OperatorResult:
        """Without a window, run the work to its end; otherwise start the tasks and watch them."""
        try:
            asked = self.tasks(context)
        except XRayError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        undo = self.bl_label if "UNDO" in self.bl_options else ""
        batch, kind = object(), type(self)
        if context.window is not None:
            asked = [(label, jobs.in_window(steps, context.window)) for label, steps in asked]
        self._tasks = [
            jobs.Task(
                label,
                steps,
                self.interval,
                undo,
                kind.__name__,
                batch,
                lambda: kind.circumstances(bpy.context),
            )
            for label, steps in asked
        ]
        if bpy.app.background:
            return self._do_here()
        person.has_pressed()
        for task in self._tasks:
            jobs.submit(task)
        manager = context.window_manager
        self._timer = manager.event_timer_add(WATCH_INTERVAL, window=context.window)
        manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def _do_here(self) -> OperatorResult:
        for task in self._tasks:
            try:
                task.result = jobs.run(task.steps, interval=self.interval)
                task.state = State.DONE
            except Cancelled:
                return {"CANCELLED"}
            except XRayError as error:
                task.state, task.error = State.FAILED, error
        return self._end()

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> OperatorResult:
        """Watch the tasks. Esc cancels the running one; other events are passed on to Blender."""
        if all(task.finished for task in self._tasks):
            # Finishing pushes an undo step, which would include a half-done transform.
            if person.is_in_operator():
                return {"PASS_THROUGH"}
            context.window_manager.event_timer_remove(self._timer)
            return self._end()
        pressed = event.type == "ESC" and event.value == "PRESS"
        if pressed and not person.needs_escape(context.window, event) and jobs.cancel_running():
            return {"RUNNING_MODAL"}
        return {"PASS_THROUGH"}

    def _end(self) -> OperatorResult:
        done = [task for task in self._tasks if task.state is State.DONE]
        errors = [task.error for task in self._tasks if task.error is not None]
        for task in done:
            self._tell(task)
        see = f". {SEE_PANEL}"
        if bpy.app.background:  # a script gets the error as an exception; there is no panel
            see = ""
            for error in errors[:1]:
                self.report({"ERROR"}, str(error))
        if len(self._tasks) > 1:
            counts = f"{len(done)} of {len(self._tasks)} done"
            counts += f", {len(errors)} failed" if errors else ""
            cancelled = len(self._tasks) - len(done) - len(errors)
            counts += f", {cancelled} cancelled" if cancelled else ""
            text = f"{self.bl_label}: {counts}"
            self.report({"WARNING"} if errors else {"INFO"}, text + see if errors else text)
        elif errors and see:
            self.report({"WARNING"}, f"{self._tasks[0].label} failed{see}")
        elif not done and not errors:
            self.report({"INFO"}, f"{self.bl_label} cancelled. {self.after_cancel}".rstrip())
        return {"FINISHED"} if any(task.error is None for task in done) else {"CANCELLED"}

    def _tell(self, task: jobs.Task) -> None:
        try:
            kind, text = self.summary(task.result)
        except XRayError as error:
            self.report({"ERROR"}, str(error))
            task.error = error
        except ReferenceError:
            self.report({"INFO"}, f"{task.label}: done, but since then undone or removed")
        else:
            self.report({kind}, text)  # type: ignore[arg-type]
