"""The operators of the queue: cancel, reorder, resume, and copy or dismiss errors."""

from __future__ import annotations

from typing import Any

import bpy

from . import jobs
from .watching import OperatorResult


class XRAY_OT_cancel(bpy.types.Operator):
    """Cancel the running task; the waiting tasks continue"""

    bl_idname = "xray.cancel"
    bl_label = "Cancel X-Ray Task"
    bl_options = {"REGISTER"}

    index: bpy.props.IntProperty(
        name="Place",
        description="Place in the queue; 0 is the running task",
        min=0,
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Require a task."""
        return _has_work(cls)

    def execute(self, _context: bpy.types.Context) -> OperatorResult:
        """Cancel the task at this place."""
        if self.index >= len(jobs.queue):
            return {"CANCELLED"}
        jobs.cancel(jobs.queue[self.index])
        return {"FINISHED"}


class XRAY_OT_cancel_all(bpy.types.Operator):
    """Cancel the running task and all waiting tasks"""

    bl_idname = "xray.cancel_all"
    bl_label = "Cancel All X-Ray Tasks"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Require a task."""
        return _has_work(cls)

    def execute(self, _context: bpy.types.Context) -> OperatorResult:
        """Cancel all tasks."""
        jobs.cancel_all()
        return {"FINISHED"}


class XRAY_OT_queue_move(bpy.types.Operator):
    """Move this task earlier or later in the queue"""

    bl_idname = "xray.queue_move"
    bl_label = "Move X-Ray Task"
    bl_options = {"REGISTER"}

    index: bpy.props.IntProperty(
        name="Place", description="Place in the queue; 0 is the running task", min=0, default=1
    )
    by: bpy.props.IntProperty(
        name="By",
        description="Number of places to move back; negative values move forward",
        default=-1,
        soft_min=-1,
        soft_max=1,
    )

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Require a waiting task."""
        if len(jobs.queue) < 2:
            cls.poll_message_set("No task is waiting")
            return False
        return True

    def execute(self, _context: bpy.types.Context) -> OperatorResult:
        """Move the task. The running one stays first."""
        if self.index >= len(jobs.queue):
            return {"CANCELLED"}
        jobs.move(jobs.queue[self.index], self.by)
        return {"FINISHED"}


class XRAY_OT_queue_resume(bpy.types.Operator):
    """Continue with the waiting tasks in a new process"""

    bl_idname = "xray.queue_resume"
    bl_label = "Continue X-Ray Tasks"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Require a paused queue."""
        if not jobs.is_paused():
            cls.poll_message_set("The queue is not paused")
            return False
        return True

    def execute(self, _context: bpy.types.Context) -> OperatorResult:
        """Resume the queue."""
        jobs.resume()
        return {"FINISHED"}


class XRAY_OT_copy_details(bpy.types.Operator):
    """Copy the errors, the end of the log and the versions, for a bug report"""

    bl_idname = "xray.copy_details"
    bl_label = "Copy Details"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Require a failed task."""
        return _has_failed(cls)

    def execute(self, context: bpy.types.Context) -> OperatorResult:
        """Copy the details to the clipboard."""
        context.window_manager.clipboard = jobs.failure_details()
        self.report({"INFO"}, "The details were copied to the clipboard")
        return {"FINISHED"}


class XRAY_OT_dismiss(bpy.types.Operator):
    """Dismiss this error"""

    bl_idname = "xray.dismiss"
    bl_label = "Dismiss X-Ray Error"
    bl_options = {"REGISTER"}

    index: bpy.props.IntProperty(
        name="Place", description="Place among the errors; 0 is the oldest", min=0
    )

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Require a failed task."""
        return _has_failed(cls)

    def execute(self, _context: bpy.types.Context) -> OperatorResult:
        """Forget the error."""
        if self.index >= len(jobs.failed):
            return {"CANCELLED"}
        jobs.dismiss(jobs.failed[self.index])
        return {"FINISHED"}


def _has_failed(cls: Any) -> bool:
    if not jobs.failed:
        cls.poll_message_set("Nothing has failed")
        return False
    return True


def _has_work(cls: Any) -> bool:
    if not jobs.queue:
        cls.poll_message_set("Nothing is running")
        return False
    return True


CLASSES: tuple[type[Any], ...] = (
    XRAY_OT_cancel,
    XRAY_OT_cancel_all,
    XRAY_OT_queue_move,
    XRAY_OT_queue_resume,
    XRAY_OT_copy_details,
    XRAY_OT_dismiss,
)
