"""The Slices panel: makes slices of an object, and a mesh from slices."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import bpy

from ..operators.interface.drawing import draw_properties
from ..operators.properties import copy_settings
from ..operators.slices.ops import XRAY_OT_save_slices, XRAY_OT_slices, XRAY_OT_slices_to_mesh
from ..xray_addon.settings.slices import SliceSettings
from .widgets import SidebarPanel, draw_progress


class XRAY_PT_slices(SidebarPanel):
    """Slices show what the image of an object hides."""

    bl_label = "Slices"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        """Draw the settings and the buttons of both directions."""
        layout, settings = self.layout, context.scene.xray.slices
        names = [item.name for item in fields(SliceSettings)]
        draw_properties(
            layout, settings, [name for name in names if SliceSettings.counts(name, settings)]
        )
        row = layout.row(align=True)
        button = row.operator(XRAY_OT_slices.bl_idname, icon="MOD_BUILD")
        copy_settings(fields(SliceSettings), settings, button)
        row.operator(XRAY_OT_save_slices.bl_idname, text="Save…", icon="FILE_TICK")
        layout.operator(XRAY_OT_slices_to_mesh.bl_idname, text="Slices to Mesh…", icon="MESH_DATA")
        draw_progress(layout, context, XRAY_OT_slices_to_mesh)


CLASSES: tuple[type[Any], ...] = (XRAY_PT_slices,)
