"""Operators that start a task: modal in a window, blocking without one."""

from __future__ import annotations

from typing import Any

import bpy

from ..xray_addon.errors import XRayError
from ..xray_addon.progress import Cancelled, State
from . import jobs

Result = set[Any]  # what Blender wants back: {"FINISHED"}, {"CANCELLED"}, {"RUNNING_MODAL"}

WATCH_INTERVAL = 0.1  # s


class TaskOperator(bpy.types.Operator):
    """Runs `work(context)` as a task and reports how it ended.

    Sub-classes give `bl_label`, `work` and `summary`. Esc cancels.
    """

    bl_idname = "xray.task"
    bl_label = "X-Ray Task"
    interval = jobs.POLL_INTERVAL

    def work(self, context: bpy.types.Context) -> jobs.Steps:
        """The work. Raises XRayError where it cannot start."""
        raise NotImplementedError

    def summary(self, result: Any) -> tuple[str, str]:
        """Report type ("INFO", "WARNING") and text for the result."""
        raise NotImplementedError

    def execute(self, context: bpy.types.Context) -> Result:
        """Do it here without a window, else start the task and watch it."""
        try:
            steps = self.work(context)
            if bpy.app.background:
                return self._succeeded(jobs.run(steps, interval=self.interval))
        except Cancelled:
            return {"CANCELLED"}
        except XRayError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        undo = self.bl_label if "UNDO" in self.bl_options else ""
        self._task = jobs.submit(
            jobs.Task(self.bl_label, steps, self.interval, undo, type(self).__name__)
        )
        manager = context.window_manager
        self._timer = manager.event_timer_add(WATCH_INTERVAL, window=context.window)
        manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> Result:
        """Watch the task; Esc cancels it, everything else goes on to Blender."""
        if self._task.finished:
            context.window_manager.event_timer_remove(self._timer)
            return self._end()
        if event.type == "ESC" and event.value == "PRESS":
            jobs.cancel(self._task)
            return {"RUNNING_MODAL"}
        return {"PASS_THROUGH"}

    def _end(self) -> Result:
        task = self._task
        if task.state is State.DONE:
            return self._succeeded(task.result)
        if task.error is not None:
            self.report({"ERROR"}, str(task.error))
        else:
            self.report({"INFO"}, f"{self.bl_label} cancelled")
        return {"CANCELLED"}

    def _succeeded(self, result: Any) -> Result:
        try:
            kind, text = self.summary(result)
        except XRayError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self.report({kind}, text)  # type: ignore[arg-type]
        return {"FINISHED"}
