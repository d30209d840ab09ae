"""What more than one panel draws."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import bpy

from ..operators import jobs
from ..operators import runtime_service as service
from ..operators.ops_runtime import (
    XRAY_OT_cancel,
    XRAY_OT_release_memory,
    XRAY_OT_runtime_install,
    XRAY_OT_runtime_start,
    XRAY_OT_runtime_stop,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

# Pixels a character takes at the usual size, for wrapping.
CHARACTER_WIDTH = 6.5

ONLINE_ACCESS_OFF = (
    "Blender's online access is off. Allow it in Preferences > System, or name a wheelhouse "
    "folder in the extension's preferences."
)


def draw_text(layout: Any, context: bpy.types.Context, text: str, icon: str = "NONE") -> None:
    """`text` over as many lines as the region's width asks for."""
    scale = context.preferences.system.ui_scale
    width = context.region.width if context.region else 300
    columns = max(20, int((width - 60 * scale) / (CHARACTER_WIDTH * scale)))
    column = layout.column(align=True)
    column.scale_y = 0.8
    for i, line in enumerate(textwrap.wrap(text, columns)):
        column.label(text=line, icon=icon if i == 0 else "BLANK1" if icon != "NONE" else "NONE")


def draw_progress(layout: Any, context: bpy.types.Context, *operators: type[Any]) -> None:
    """The bar and Cancel of the running task, or why the last one failed, if it is of `operators`.

    The panel with the button that started the work is where its fate is looked for.
    """
    names = [operator.__name__ for operator in operators]
    if jobs.queue:
        task = jobs.queue[0]
        if task.operator not in names:
            return
        row = layout.row(align=True)
        progress = task.progress
        row.progress(
            factor=progress.fraction,
            type="BAR" if progress.of else "RING",
            text="Cancelling" if task.cancelling else jobs.describe(task.progress),
        )
        row.operator(XRAY_OT_cancel.bl_idname, text="", icon="CANCEL")
        if len(jobs.queue) > 1:
            layout.label(text=f"{len(jobs.queue) - 1} more waiting")
    else:
        failed = jobs.last_failed()
        if failed is not None and failed.error is not None and failed.operator in names:
            error = failed.error
            box = layout.box()
            message = box.column()
            message.alert = True
            draw_text(message, context, error.message, "ERROR")
            if error.remedy:
                draw_text(box, context, error.remedy)
            if error.log:
                box.operator("wm.path_open", text="Open Log", icon="TEXT").filepath = error.log


def draw_runtime(layout: Any, context: bpy.types.Context) -> None:
    """The runtime's state and its buttons."""
    client = service.current_client()
    if not service.is_available():
        layout.label(text="Not installed", icon="X")
        if not XRAY_OT_runtime_install.possible():
            draw_text(layout, context, ONLINE_ACCESS_OFF)
        layout.operator(XRAY_OT_runtime_install.bl_idname, icon="IMPORT")
        draw_progress(layout, context, XRAY_OT_runtime_install)
        return
    running = service.is_running()
    if not running:
        layout.label(text="Installed", icon="CHECKMARK")
    elif client is not None and client.is_ready:
        layout.label(text="Running", icon="PLAY")
    else:
        layout.label(text="Starting", icon="TIME")
    status = client.latest_status if client and running else None
    if status is not None and status.device:
        gigabytes = status.memory / 1e9
        layout.label(text=f"{status.device_name or status.device}: {gigabytes:.1f} GB in use")
    if client is not None and client.error is not None:
        draw_text(layout, context, str(client.error), "ERROR")
    draw_progress(layout, context, XRAY_OT_runtime_install, XRAY_OT_runtime_start)
    row = layout.row(align=True)
    if running:
        row.operator(XRAY_OT_runtime_stop.bl_idname, text="Stop", icon="QUIT")
        row.operator(XRAY_OT_release_memory.bl_idname, text="Release Memory", icon="TRASH")
    else:
        row.operator(XRAY_OT_runtime_start.bl_idname, text="Start", icon="PLAY")
        row.operator(XRAY_OT_runtime_install.bl_idname, text="Reinstall", icon="FILE_REFRESH")


class SidebarPanel(bpy.types.Panel):
    """Where all of X-Ray's panels are."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "X-Ray"
    layout: Any


def draw_properties(layout: Any, source: Any, names: Iterable[str]) -> None:
    """A column of properties, their names to the left."""
    column = layout.column()
    column.use_property_split = True
    column.use_property_decorate = False
    for name in names:
        column.prop(source, name)
