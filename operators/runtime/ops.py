"""The operators that install, start and stop the model runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bpy

from ..tasks import jobs
from ..tasks.watching import OperatorResult, TaskOperator
from . import service

if TYPE_CHECKING:
    from ...xray_addon.process.environment import Check


report = ""  # what the latest check has found


class XRAY_OT_runtime_install(TaskOperator):
    """Install the model runtime (PyTorch and friends) into its own folder, outside Blender"""

    bl_idname = "xray.runtime_install"
    bl_label = "Install Runtime"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Without online access only a wheelhouse helps."""
        if not cls.possible():
            cls.poll_message_set(
                "Allow Online Access in Preferences > System, or name a wheelhouse folder in "
                "the extension's preferences"
            )
            return False
        if jobs.queue:
            cls.poll_message_set("Wait for the work that runs")
            return False
        return True

    @classmethod
    def possible(cls) -> bool:
        """Whether there is anything to install from."""
        arguments = service.install_arguments(bpy.app.online_access)
        return bool(arguments["online"] or arguments["wheelhouse"])

    def work(self, _context: bpy.types.Context) -> jobs.Steps:
        """Install into the preferences' folder."""
        return service.install_steps(**service.install_arguments(bpy.app.online_access))

    def summary(self, result: Check) -> tuple[str, str]:
        """The device that works."""
        return "INFO", f"The runtime is installed and runs on {result.device_name}"


class XRAY_OT_runtime_remove(TaskOperator):
    """Remove the model runtime from the disk, for every Blender; downloaded weights stay"""

    bl_idname = "xray.runtime_remove"
    bl_label = "Remove Runtime"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """It must be installed and nothing run."""
        if not service.environment().is_installed:
            cls.poll_message_set("The runtime is not installed")
            return False
        if jobs.queue:
            cls.poll_message_set("Wait for the work that runs")
            return False
        return True

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> OperatorResult:
        """Ask before."""
        return context.window_manager.invoke_confirm(self, event)

    def work(self, _context: bpy.types.Context) -> jobs.Steps:
        """Remove the preferences' folder's environment."""
        return service.remove_steps()

    def summary(self, _result: Any) -> tuple[str, str]:
        """That it is gone."""
        return "INFO", "The runtime is removed"


class XRAY_OT_runtime_check(TaskOperator):
    """Try the model runtime and tell device, memory, driver, versions and model"""

    bl_idname = "xray.runtime_check"
    bl_label = "Check Runtime"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """It must be installed."""
        if not service.is_available():
            cls.poll_message_set("Install the runtime first")
            return False
        return True

    def work(self, _context: bpy.types.Context) -> jobs.Steps:
        """Try it."""
        return service.check_steps()

    def summary(self, result: str) -> tuple[str, str]:
        """That it works; the panel shows the rest."""
        global report
        report = result
        return "INFO", "The runtime works"


class XRAY_OT_copy_report(bpy.types.Operator):
    """Copy what the check of the runtime has found, for a bug report"""

    bl_idname = "xray.copy_report"
    bl_label = "Copy Runtime Report"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """It must have been checked."""
        if not report:
            cls.poll_message_set("Check the runtime first")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> OperatorResult:
        """Put it into the clipboard."""
        context.window_manager.clipboard = report
        self.report({"INFO"}, "The report is in the clipboard")
        return {"FINISHED"}


class XRAY_OT_runtime_start(TaskOperator):
    """Start the model runtime now, so that the first image does not wait for it"""

    bl_idname = "xray.runtime_start"
    bl_label = "Start Runtime"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """It must be installed and not running."""
        if not service.is_available():
            cls.poll_message_set("Install the runtime first")
            return False
        if service.is_running():
            cls.poll_message_set("The runtime is running")
            return False
        return True

    def work(self, _context: bpy.types.Context) -> jobs.Steps:
        """Start it and wait for its answer."""
        return service.start_steps()

    def summary(self, _result: Any) -> tuple[str, str]:
        """That it runs."""
        return "INFO", "The runtime is running"


class XRAY_OT_runtime_stop(bpy.types.Operator):
    """End the model runtime's process and what it is working on"""

    bl_idname = "xray.runtime_stop"
    bl_label = "Stop Runtime"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """It must be running."""
        return _running(cls)

    def execute(self, _context: bpy.types.Context) -> OperatorResult:
        """Stop it."""
        service.stop()
        return {"FINISHED"}


class XRAY_OT_release_memory(bpy.types.Operator):
    """Take the model out of the GPU's memory; the next image loads it again"""

    bl_idname = "xray.release_memory"
    bl_label = "Release GPU Memory"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """It must be running."""
        return _running(cls)

    def execute(self, _context: bpy.types.Context) -> OperatorResult:
        """Ask for it; it happens once the running image is done."""
        client = service.client()
        client.release()
        client.request_status()
        client.poll()
        return {"FINISHED"}


def _running(cls: Any) -> bool:
    if not service.is_running():
        cls.poll_message_set("The runtime is not running")
        return False
    return True


CLASSES: tuple[type[Any], ...] = (
    XRAY_OT_runtime_install,
    XRAY_OT_runtime_remove,
    XRAY_OT_runtime_check,
    XRAY_OT_copy_report,
    XRAY_OT_runtime_start,
    XRAY_OT_runtime_stop,
    XRAY_OT_release_memory,
)
