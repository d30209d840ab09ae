"""The operators that install, start and stop the model runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bpy

from ...xray_addon.errors import XRayError
from ..properties import absolute_path, preferences
from ..tasks import jobs
from ..tasks.watching import OperatorResult, TaskOperator
from . import service

if TYPE_CHECKING:
    from ...xray_addon.process.environment import Check


report = ""  # of the latest check


class XRAY_OT_runtime_install(TaskOperator):
    """Install the model runtime (PyTorch and its packages) into its own folder, outside Blender"""

    bl_idname = "xray.runtime_install"
    bl_label = "Install Runtime"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Require online access or a wheelhouse, and that nothing is running."""
        if not cls.possible():
            cls.poll_message_set(
                "Press Allow Online Access, or Install Offline with a folder of wheels"
            )
            return False
        return _idle(cls)

    @classmethod
    def possible(cls) -> bool:
        """Whether there is a source to install from."""
        arguments = service.install_arguments(bpy.app.online_access)
        return bool(arguments["online"] or arguments["wheelhouse"])

    @classmethod
    def circumstances(cls, _context: bpy.types.Context) -> Any:
        """The source of the install, and whether it is installed."""
        return *service.install_arguments(bpy.app.online_access).values(), service.is_available()

    def work(self, _context: bpy.types.Context) -> jobs.Steps:
        """Install into the preferences' folder."""
        return service.install_steps(**service.install_arguments(bpy.app.online_access))

    def summary(self, result: Check) -> tuple[str, str]:
        """The device that the runtime uses."""
        return "INFO", f"The runtime is installed and runs on {result.device_name}"


class XRAY_OT_runtime_install_offline(TaskOperator):
    """Install the model runtime from a folder of Python wheels, without a network"""

    bl_idname = "xray.runtime_install_offline"
    bl_label = "Install Runtime from Folder"
    bl_options = {"REGISTER"}

    directory: bpy.props.StringProperty(
        name="Wheelhouse",
        description="Folder of wheels, filled on another machine (see the user guide)",
        subtype="DIR_PATH",
        options={"SKIP_SAVE"},
    )
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN"})

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Require that nothing is running."""
        return _idle(cls)

    @classmethod
    def circumstances(cls, context: bpy.types.Context) -> Any:
        """As for an install from the network."""
        return XRAY_OT_runtime_install.circumstances(context)

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> OperatorResult:
        """Ask for the folder, starting in the preferences' one."""
        chosen = preferences()
        if not self.directory:
            self.directory = chosen.wheelhouse if chosen else ""
            context.window_manager.fileselect_add(self)
            return {"RUNNING_MODAL"}
        return self.execute(context)

    def work(self, _context: bpy.types.Context) -> jobs.Steps:
        """Install from the folder and keep it in the preferences, for Repair."""
        folder = absolute_path(self.directory)
        if not self.directory or not any(folder.glob("*.whl")):
            raise XRayError(
                "bad_settings",
                f"{folder} has no Python wheels." if self.directory else "No folder is chosen.",
                "Choose the folder that you filled with pip download; the user guide says how.",
            )
        chosen = preferences()
        if chosen:
            chosen.wheelhouse = self.directory
        return service.install_steps(**service.install_arguments(online=False))

    def summary(self, result: Check) -> tuple[str, str]:
        """The device that the runtime uses."""
        return "INFO", f"The runtime is installed and runs on {result.device_name}"


class XRAY_OT_runtime_remove(TaskOperator):
    """Delete the model runtime, which all Blender versions share; downloaded weights are kept"""

    bl_idname = "xray.runtime_remove"
    bl_label = "Remove Runtime"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Require an installed runtime, and that nothing is running."""
        if not service.environment().is_installed:
            cls.poll_message_set("The runtime is not installed")
            return False
        return _idle(cls)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> OperatorResult:
        """Ask for confirmation."""
        return context.window_manager.invoke_confirm(self, event)

    @classmethod
    def circumstances(cls, _context: bpy.types.Context) -> Any:
        """What is installed and running."""
        return service.is_available(), service.is_running()

    def work(self, _context: bpy.types.Context) -> jobs.Steps:
        """Remove the environment in the preferences' folder."""
        return service.remove_steps()

    def summary(self, _result: Any) -> tuple[str, str]:
        """That the runtime was removed."""
        return "INFO", "The runtime was removed"


class XRAY_OT_runtime_check(TaskOperator):
    """Test the model runtime and show its device, memory, driver, versions and model"""

    bl_idname = "xray.runtime_check"
    bl_label = "Check Runtime"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Require an installed runtime."""
        if not service.is_available():
            cls.poll_message_set("Install the runtime first")
            return False
        return True

    @classmethod
    def circumstances(cls, _context: bpy.types.Context) -> Any:
        """What is installed."""
        return service.is_available()

    def work(self, _context: bpy.types.Context) -> jobs.Steps:
        """Test the runtime."""
        return service.check_steps()

    def summary(self, result: str) -> tuple[str, str]:
        """That the runtime works. The panel shows the details."""
        global report
        report = result
        return "INFO", "The runtime works"


class XRAY_OT_copy_report(bpy.types.Operator):
    """Copy the result of Check Runtime and the runtime's last error, for a bug report"""

    bl_idname = "xray.copy_report"
    bl_label = "Copy Runtime Report"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Require a finished check or an error."""
        if not _bug_report():
            cls.poll_message_set("Check the runtime first")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> OperatorResult:
        """Copy the report to the clipboard."""
        context.window_manager.clipboard = _bug_report()
        self.report({"INFO"}, "The report was copied to the clipboard")
        return {"FINISHED"}


def _bug_report() -> str:
    """The report of the latest check, and the runtime's state if it ended with an error."""
    client = service.current_client()
    failed = client is not None and client.error is not None
    return "\n\n".join(filter(None, (report, service.health_report(None) if failed else "")))


class XRAY_OT_runtime_start(TaskOperator):
    """Start the model runtime now, so that the first image does not have to wait for it"""

    bl_idname = "xray.runtime_start"
    bl_label = "Start Runtime"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Require an installed runtime that is not running."""
        if not service.is_available():
            cls.poll_message_set("Install the runtime first")
            return False
        if service.is_running():
            cls.poll_message_set("The runtime is running")
            return False
        return True

    @classmethod
    def circumstances(cls, _context: bpy.types.Context) -> Any:
        """What is installed and running."""
        return service.is_available(), service.is_running()

    def work(self, _context: bpy.types.Context) -> jobs.Steps:
        """Start the process and wait for its answer."""
        return service.start_steps()

    def summary(self, _result: Any) -> tuple[str, str]:
        """That the runtime is running."""
        return "INFO", "The runtime is running"


class XRAY_OT_runtime_stop(bpy.types.Operator):
    """Stop the model runtime's process and its current work"""

    bl_idname = "xray.runtime_stop"
    bl_label = "Stop Runtime"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Require a running runtime."""
        return _running(cls)

    def execute(self, _context: bpy.types.Context) -> OperatorResult:
        """Stop the process."""
        service.stop()
        return {"FINISHED"}


class XRAY_OT_release_memory(bpy.types.Operator):
    """Unload the model from GPU memory; the next image loads it again"""

    bl_idname = "xray.release_memory"
    bl_label = "Release GPU Memory"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Require a running runtime."""
        return _running(cls)

    def execute(self, _context: bpy.types.Context) -> OperatorResult:
        """Request the unloading, which happens after the current image."""
        client = service.client()
        client.release()
        client.request_status()
        client.poll()
        return {"FINISHED"}


class XRAY_OT_runtime_dismiss(bpy.types.Operator):
    """Dismiss the error with which the model runtime ended"""

    bl_idname = "xray.runtime_dismiss"
    bl_label = "Dismiss Runtime Error"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Require a runtime that ended by itself."""
        if service.state() != "lost":
            cls.poll_message_set("The runtime has not failed")
            return False
        return True

    def execute(self, _context: bpy.types.Context) -> OperatorResult:
        """Forget the ended process."""
        service.stop()
        jobs.redraw()
        return {"FINISHED"}


def _idle(cls: Any) -> bool:
    if jobs.queue:
        cls.poll_message_set("Wait for the work that runs")
        return False
    return True


def _running(cls: Any) -> bool:
    if not service.is_running():
        cls.poll_message_set("The runtime is not running")
        return False
    return True


CLASSES: tuple[type[Any], ...] = (
    XRAY_OT_runtime_install,
    XRAY_OT_runtime_install_offline,
    XRAY_OT_runtime_remove,
    XRAY_OT_runtime_check,
    XRAY_OT_copy_report,
    XRAY_OT_runtime_start,
    XRAY_OT_runtime_stop,
    XRAY_OT_release_memory,
    XRAY_OT_runtime_dismiss,
)
