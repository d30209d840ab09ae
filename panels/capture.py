"""The Capture panel: makes X-Rays of meshes."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import bpy

from ..operators.dataset.ops_capture import XRAY_OT_capture, asks_for_folder
from ..operators.interface.drawing import draw_properties
from ..operators.layers.ops_import import XRAY_OT_import_xray
from ..operators.properties import copy_settings
from ..xray_addon.settings.capture import CaptureSettings
from .widgets import SidebarPanel, draw_progress


class XRAY_PT_capture(SidebarPanel):
    """Capture meshes as X-Rays."""

    bl_label = "Capture"

    def draw(self, context: bpy.types.Context) -> None:
        """Draw the settings and the button."""
        layout, scene = self.layout, context.scene.xray.capture
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(scene, "camera", expand=True)
        sampled = layout.column()
        sampled.active = scene.camera == "sampled"
        sampled.prop(scene, "views")
        sampled.prop(scene, "seed")
        draw_properties(layout, scene, ("layers", "size", "visible_in", "combine", "directory"))
        text = "Capture Selected" + ("…" if asks_for_folder(scene.directory) else "")
        row = layout.row()
        row.scale_y = 1.4
        button = row.operator(XRAY_OT_capture.bl_idname, text=text, icon="RENDERLAYERS")
        copy_settings(fields(CaptureSettings), scene, button)
        button.directory = scene.directory
        draw_progress(layout, context, XRAY_OT_capture)
        layout.operator(XRAY_OT_import_xray.bl_idname, text="Import X-Ray…", icon="IMPORT")


CLASSES: tuple[type[Any], ...] = (XRAY_PT_capture,)
