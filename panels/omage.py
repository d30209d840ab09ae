"""The Omage panel, and the panel in the Image Editor that switches an omage's views."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import bpy

from ..operators.interface.drawing import draw_properties
from ..operators.interface.translation import translated
from ..operators.omage.editor import omage_images, shown_name
from ..operators.omage.ops import (
    XRAY_OT_object_to_omage,
    XRAY_OT_omage_material,
    XRAY_OT_show_omage,
    set_from_panel,
)
from ..operators.properties import copy_settings, system_settings
from ..xray_addon.omage.pictures import VIEWS
from ..xray_addon.settings.omage import OmageSettings
from ..xray_addon.systems.omages import SYSTEM
from .widgets import SidebarPanel, draw_omage_to_object, draw_progress, draw_text

LARGE = 512  # px along a side, above which the panel warns of the object's size


class XRAY_PT_omage(SidebarPanel):
    """Converts objects to an omage and back."""

    bl_label = "Omage"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        """Draw the buttons of both directions."""
        layout, scene = self.layout, context.scene.xray.omage
        draw_properties(layout, scene, ("resolution", "downsample", "patches", "visible_in"))
        button = layout.operator(XRAY_OT_object_to_omage.bl_idname, icon="IMAGE_DATA")
        copy_settings(fields(OmageSettings), scene, button)
        _draw_views(layout, context)
        draw_properties(layout, scene, ("stitch",))
        column = layout.column(align=True)
        draw_omage_to_object(column, context, icon="MESH_DATA")
        file = draw_omage_to_object(column, context, text="Omage File to Object…", icon="MESH_DATA")
        file.source = "file"


class XRAY_PT_omage_material(SidebarPanel):
    """Makes a material for an existing mesh."""

    bl_label = "Material Only"
    bl_parent_id = "XRAY_PT_omage"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        """Draw the network's settings and its progress."""
        layout = self.layout
        own = system_settings(context.scene.xray.generate, SYSTEM)
        draw_properties(layout, own, ("category", "sampler", "material_steps", "checkpoint"))
        draw_properties(layout, context.scene.xray.generate, ("seed",))
        button = layout.operator(XRAY_OT_omage_material.bl_idname, icon="MATERIAL")
        set_from_panel(button, context.scene.xray.generate)
        draw_progress(layout, context, XRAY_OT_omage_material)


class XRAY_PT_omage_views(bpy.types.Panel):
    """Switches the views of an omage in the Image Editor."""

    bl_label = "Omage"
    bl_space_type = "IMAGE_EDITOR"
    bl_region_type = "UI"
    bl_category = "X-Ray"
    layout: Any

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Require an omage."""
        return bool(shown_name(context))

    def draw(self, context: bpy.types.Context) -> None:
        """Draw a button for each view, and the one that makes an object."""
        _draw_views(self.layout, context)
        draw_omage_to_object(self.layout, context, icon="MESH_DATA")


def _draw_views(layout: Any, context: bpy.types.Context) -> None:
    name = shown_name(context)
    images = omage_images(name) if name else {}
    if not images:
        return
    size = images["position"].size[0] if "position" in images else 0
    layout.label(text=translated("{}, {} pixels").format(name, size), icon="IMAGE")
    if size > LARGE:
        text = translated("Its object will have up to {:.1f} million triangles.")
        draw_text(layout, context, text.format(2 * size**2 / 1e6), "INFO")
    grid = layout.grid_flow(columns=3, align=True)
    for view in VIEWS:
        if view in images:
            button = grid.operator(XRAY_OT_show_omage.bl_idname, text=view.title())
            button.view = view


CLASSES: tuple[type[Any], ...] = (XRAY_PT_omage, XRAY_PT_omage_material, XRAY_PT_omage_views)
