"""Drawing functions shared by several panels."""

from __future__ import annotations

import re
import urllib.parse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
from bl_ui.utils import PresetPanel

from ..operators.interface.icons import icon_of
from ..operators.interface.translation import translated
from ..operators.omage.ops import XRAY_OT_omage_to_object
from ..operators.runtime import ops as ops_runtime
from ..operators.runtime import service
from ..operators.runtime.ops import (
    XRAY_OT_copy_report,
    XRAY_OT_release_memory,
    XRAY_OT_runtime_check,
    XRAY_OT_runtime_dismiss,
    XRAY_OT_runtime_install,
    XRAY_OT_runtime_install_offline,
    XRAY_OT_runtime_remove,
    XRAY_OT_runtime_start,
    XRAY_OT_runtime_stop,
)
from ..operators.tasks import jobs
from ..operators.tasks.ops import (
    XRAY_OT_cancel,
    XRAY_OT_cancel_all,
    XRAY_OT_copy_details,
    XRAY_OT_dismiss,
    XRAY_OT_queue_move,
    XRAY_OT_queue_resume,
)
from ..xray_addon.errors import XRayError
from ..xray_addon.systems.weights import megabytes

if TYPE_CHECKING:
    from collections.abc import Callable

# Pixels per character at the default size, for wrapping.
CHARACTER_WIDTH = 6.5
# Pixels at the default size: the tabs and margins of a sidebar, an icon, a box's frame.
MARGIN, ICON_WIDTH, BOX_WIDTH = 60, 20, 10
SHIPPED = Path(__file__).resolve().parents[1] / "presets"
PREVIEW_SCALE = 8.0  # times the size of an icon
WAITING_SHOWN = 8
FAILURES_SHOWN = 3

# Label and icon of each runtime state.
STATES = {
    "off": ("Off", "RADIOBUT_OFF"),
    "starting": ("Starting", "TIME"),
    "ready": ("Ready", "CHECKMARK"),
    "busy": ("Busy", "PLAY"),
    "lost": ("Lost", "ERROR"),
}
RUNTIME_TASKS = (
    XRAY_OT_runtime_install,
    XRAY_OT_runtime_remove,
    XRAY_OT_runtime_check,
    XRAY_OT_runtime_start,
)

NEEDS_RUNTIME = (
    "Making meshes from images needs the model runtime: Python packages in a folder of their own, "
    "installed once for all Blender versions."
)

_ADDRESS = re.compile(r"https?://[^\s,;()\"']+[^\s,;()\"'.]")


def draw_text(
    layout: Any, context: bpy.types.Context, text: str, icon: str = "NONE", beside: int = 0
) -> None:
    """Draw `text`, translated and wrapped to the region's width; line breaks are kept.

    beside : width in pixels, at the default size, of something next to it, such as a button.
    """
    scale = context.preferences.system.ui_scale
    width = context.region.width if context.region else 300
    taken = MARGIN + beside + (ICON_WIDTH if icon != "NONE" else 0)
    columns = max(20, int((width - taken * scale) / (CHARACTER_WIDTH * scale)))
    column = layout.column(align=True)
    column.scale_y = 0.8
    for i, line in enumerate(wrapped(translated(text), columns)):
        column.label(text=line, icon=icon if i == 0 else "BLANK1" if icon != "NONE" else "NONE")


def wrapped(text: str, columns: int) -> list[str]:
    """The lines of `text` with at most `columns` characters each.

    Line breaks are kept. A path or an address is broken after a slash if it is too long for a line.
    """
    lines = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            if line and len(line) + 1 + len(word) > columns:
                lines.append(line)
                line = ""
            line = f"{line} {word}".lstrip()
            while len(line) > columns:
                slash = 1 + max(line.rfind("/", 0, columns), line.rfind("\\", 0, columns))
                cut = slash or columns
                lines.append(line[:cut])
                line = line[cut:]
        lines.append(line)
    return lines


def draw_progress(layout: Any, context: bpy.types.Context, *operators: type[Any]) -> None:
    """Draw the tasks of `operators`: the running one with bar and Cancel, waiting and failed ones.

    People look for progress in the panel whose button started the work.
    """
    names = [operator.__name__ for operator in operators]
    if jobs.queue and jobs.queue[0].operator in names:
        _draw_running(layout, context, jobs.queue[0])
    if any(task.operator in names for task in jobs.queue):
        _draw_waiting(layout)
    failures = [task for task in jobs.current_failures() if task.operator in names]
    for task in failures[-FAILURES_SHOWN:]:
        if task.error is not None:
            dismiss = partial(_draw_dismiss, index=jobs.failed.index(task))
            draw_error(layout, context, task.error, task.label, dismiss)


def _draw_running(layout: Any, context: bpy.types.Context, task: jobs.Task) -> None:
    if jobs.is_paused():
        row = layout.row(align=True)
        row.operator(XRAY_OT_queue_resume.bl_idname, text="Continue", icon="PLAY")
        row.operator(XRAY_OT_cancel_all.bl_idname, text="Cancel All", icon="CANCEL")
        return
    layout.label(text=task.label)
    row = layout.row(align=True)
    row.progress(
        factor=task.progress.fraction,
        type="BAR" if task.progress.of else "RING",
        text=jobs.describe_time(task),
    )
    row.operator(XRAY_OT_cancel.bl_idname, text="", icon="CANCEL").index = 0
    draw_text(layout, context, "Cancelling" if task.cancelling else jobs.describe(task.progress))
    if task.preview is not None:
        layout.template_icon(icon_of("preview", task.preview), scale=PREVIEW_SCALE)


def _draw_waiting(layout: Any) -> None:
    """Draw the tasks that wait."""
    waiting = jobs.waiting()
    if not waiting:
        return
    column = layout.box().column(align=True)
    for task in waiting[:WAITING_SHOWN]:
        index = jobs.queue.index(task)
        row = column.row(align=True)
        row.label(text=task.label)
        for icon, by in (("TRIA_UP", -1), ("TRIA_DOWN", 1)):
            arrow = row.row(align=True)
            arrow.enabled = jobs.can_move(task, by)
            button = arrow.operator(XRAY_OT_queue_move.bl_idname, text="", icon=icon, emboss=False)
            button.index, button.by = index, by
        button = row.operator(XRAY_OT_cancel.bl_idname, text="", icon="X", emboss=False)
        button.index = index
    if len(waiting) > WAITING_SHOWN:
        column.label(text=translated("{} more").format(len(waiting) - WAITING_SHOWN))
    if not jobs.is_paused():  # otherwise it is beside Continue
        column.separator()
        column.operator(XRAY_OT_cancel_all.bl_idname, text="Cancel All", icon="CANCEL")


def _draw_dismiss(row: Any, index: int) -> None:
    row.operator(XRAY_OT_dismiss.bl_idname, text="", icon="X", emboss=False).index = index


def draw_error(
    layout: Any,
    context: bpy.types.Context,
    error: XRayError,
    title: str,
    draw_dismiss: Callable[[Any], None],
    copy: type[Any] = XRAY_OT_copy_details,
) -> None:
    """Draw what happened, what to do about it, and buttons for its addresses and its log.

    draw_dismiss : draws the button that dismisses it, into a row. copy : the operator that copies
    the error for a bug report.
    """
    box = layout.box()
    row = box.row()
    message = row.column()
    message.alert = True
    text = f"{title}: {error.message}" if title else error.message
    draw_text(message, context, text, "ERROR", BOX_WIDTH + ICON_WIDTH)
    draw_dismiss(row)
    if error.remedy:
        draw_text(box, context, error.remedy, beside=BOX_WIDTH)
    for address in _ADDRESS.findall(f"{error.message} {error.remedy}"):
        host = urllib.parse.urlsplit(address).netloc
        text = translated("Open {}").format(host)
        box.operator("wm.url_open", text=text, icon="URL").url = address
    row = box.row(align=True)
    row.operator(copy.bl_idname, text=XRAY_OT_copy_details.bl_label, icon="COPYDOWN")
    if error.log:
        row.operator("wm.path_open", text="Open Log", icon="TEXT").filepath = error.log


def draw_install(layout: Any, context: bpy.types.Context) -> None:
    """Draw the first screen: what the runtime is, its size, and how to install it."""
    draw_text(layout, context, NEEDS_RUNTIME)
    _draw_plan(layout, context)
    if not XRAY_OT_runtime_install.possible():
        draw_text(layout, context, "Blender is not allowed to go online, so it cannot download it.")
        layout.operator(
            "extensions.userpref_allow_online", text="Allow Online Access", icon="INTERNET"
        )
    column = layout.column(align=True)
    column.scale_y = 1.2
    column.operator(XRAY_OT_runtime_install.bl_idname, icon="IMPORT")
    column.operator(
        XRAY_OT_runtime_install_offline.bl_idname, text="Install Offline…", icon="FILE_FOLDER"
    )
    draw_progress(layout, context, XRAY_OT_runtime_install, XRAY_OT_runtime_install_offline)


def draw_runtime(layout: Any, context: bpy.types.Context) -> None:
    """Draw the runtime's state and its buttons."""
    client = service.current_client()
    if not service.is_available():
        draw_install(layout, context)
        return
    text, icon = STATES[service.state()]
    layout.label(text=text, icon=icon)
    running = service.is_running()
    status = client.latest_status if client and running else None
    if status is not None and status.device:
        text = status.device_name or status.device
        if status.memory:
            used, total = megabytes(status.memory), megabytes(status.memory_total)
            text += translated(": {} of {} in use").format(used, total)
        draw_text(layout, context, text)
    if client is not None and client.error is not None:
        draw_error(layout, context, client.error, "", _draw_dismiss_runtime, XRAY_OT_copy_report)
    row = layout.row(align=True)
    if running:
        row.operator(XRAY_OT_runtime_stop.bl_idname, text="Stop", icon="QUIT")
        row.operator(XRAY_OT_release_memory.bl_idname, text="Release Memory", icon="TRASH")
    else:
        row.operator(XRAY_OT_runtime_start.bl_idname, text="Start", icon="PLAY")
        row.operator(XRAY_OT_runtime_install.bl_idname, text="Repair", icon="FILE_REFRESH")
        row.operator(XRAY_OT_runtime_remove.bl_idname, text="Remove…", icon="TRASH")
    layout.operator(XRAY_OT_runtime_check.bl_idname, icon="CHECKMARK")
    draw_progress(layout, context, *RUNTIME_TASKS)
    if ops_runtime.report:
        box = layout.box()
        for line in ops_runtime.report.splitlines():
            draw_text(box, context, line)
        box.operator(XRAY_OT_copy_report.bl_idname, text="Copy", icon="COPYDOWN")


def _draw_dismiss_runtime(row: Any) -> None:
    row.operator(XRAY_OT_runtime_dismiss.bl_idname, text="", icon="X", emboss=False)


def _draw_plan(layout: Any, context: bpy.types.Context) -> None:
    """Draw the download of an install, and its size."""
    try:
        plan = service.install_plan()
    except XRayError as error:
        draw_text(layout, context, str(error), "ERROR")
        return
    if plan is not None:
        text = translated("PyTorch for {}").format(plan.build)
        if plan.download:
            fetched = plan.download / 1e9
            text += translated(", about {:.1f} GB to download").format(fetched)
        needed = plan.needed / 1e9
        text += translated(", {:.0f} GB of free disk space").format(needed)
        draw_text(layout, context, text, "DISK_DRIVE")


class SidebarPanel(bpy.types.Panel):
    """Base class that puts a panel into the sidebar's X-Ray tab."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "X-Ray"
    layout: Any


class PresetsPanel(PresetPanel):
    """Base class of a list of presets: the user's and the built-in ones, which stay."""

    layout: Any
    path_menu: Any
    preset_subdir = ""
    preset_operator = "script.execute_preset"
    preset_add_operator = ""

    def draw(self, _context: bpy.types.Context) -> None:
        """List the presets, and a field for the name of a new one."""
        layout = self.layout
        layout.emboss = "PULLDOWN_MENU"
        layout.operator_context = "EXEC_DEFAULT"
        column = layout.column(align=True)
        for path in sorted((SHIPPED / self.preset_subdir).glob("*.py")):
            button = column.operator(self.preset_operator, text=path.stem.replace("_", " "))
            button.filepath, button.menu_idname = str(path), type(self).__name__
        # Without a user folder it would report missing paths.
        self.path_menu(
            bpy.utils.preset_paths(self.preset_subdir) or [str(SHIPPED)],
            self.preset_operator,
            filter_ext=lambda suffix: suffix == ".py",
            display_name=lambda path: bpy.path.display_name(path, title_case=False),
            add_operator=self.preset_add_operator,
        )


def draw_omage_to_object(layout: Any, context: bpy.types.Context, **options: Any) -> Any:
    """Draw the button that makes an object of the Image Editor's omage, with the panel's settings.

    options : of `layout.operator`. The result is the button's operator.
    """
    button = layout.operator(XRAY_OT_omage_to_object.bl_idname, **options)
    button.source, button.stitch = "editor", context.scene.xray.omage.stitch
    return button
