"""The operators of the queue: cancel, reorder, go on, and what an error says."""

from __future__ import annotations

from typing import Any

import bpy

from . import jobs
from .watching import OperatorResult


class XRAY_OT_cancel(bpy.types.Operator):
    """Cancel the work that runs; what waits behind it goes on"""

    bl_idname = "xray.cancel"
    bl_label = "Cancel X-Ray Task"
    bl_options = {"REGISTER"}

    index: bpy.props.IntProperty(
        name="Place", description="Place in the queue; 0 is what runs", min=0, options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """There must be work."""
        return _has_work(cls)

    def execute(self, _context: bpy.types.Context) -> OperatorResult:
        """Cancel the task at this place."""
        if self.index >= len(jobs.queue):
            return {"CANCELLED"}
        jobs.cancel(jobs.queue[self.index])
        return {"FINISHED"}


class XRAY_OT_cancel_all(bpy.types.Operator):
    """Cancel the work that runs and all that waits behind it"""

    bl_idname = "xray.cancel_all"
    bl_label = "Cancel All X-Ray Tasks"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """There must be work."""
        return _has_work(cls)

    def execute(self, _context: bpy.types.Context) -> OperatorResult:
        """Cancel everything."""
        jobs.cancel_all()
        return {"FINISHED"}


class XRAY_OT_queue_move(bpy.types.Operator):
    """Let this task run earlier or later"""

    bl_idname = "xray.queue_move"
    bl_label = "Move X-Ray Task"
    bl_options = {"REGISTER"}

    index: bpy.props.IntProperty(
        name="Place", description="Place in the queue; 0 is what runs", min=0, default=1
    )
    by: bpy.props.IntProperty(
        name="By", description="Places later; earlier below 0", default=-1, soft_min=-1, soft_max=1
    )

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Something must wait."""
        if len(jobs.queue) < 2:
            cls.poll_message_set("Nothing waits behind the work that runs")
            return False
        return True

    def execute(self, _context: bpy.types.Context) -> OperatorResult:
        """Move it; what runs stays first."""
        if self.index >= len(jobs.queue):
            return {"CANCELLED"}
        jobs.move(jobs.queue[self.index], self.by)
        return {"FINISHED"}


class XRAY_OT_queue_resume(bpy.types.Operator):
    """Go on with the tasks that wait, with a new process"""

    bl_idname = "xray.queue_resume"
    bl_label = "Continue X-Ray Tasks"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """The queue must have stopped."""
        if not jobs.is_paused():
            cls.poll_message_set("Nothing has stopped")
            return False
        return True

    def execute(self, _context: bpy.types.Context) -> OperatorResult:
        """Go on."""
        jobs.resume()
        return {"FINISHED"}


class XRAY_OT_copy_details(bpy.types.Operator):
    """Copy what failed and why, with the log's last lines and the versions, for a bug report"""

    bl_idname = "xray.copy_details"
    bl_label = "Copy Details"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Something must have failed."""
        if not jobs.failed:
            cls.poll_message_set("Nothing has failed")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> OperatorResult:
        """Put it into the clipboard."""
        context.window_manager.clipboard = jobs.failure_details()
        self.report({"INFO"}, "The details are in the clipboard")
        return {"FINISHED"}


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
)
