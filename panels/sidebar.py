"""The X-Ray tab of the 3D view's sidebar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bpy

from ..operators import runtime_service as service
from ..operators.layers import layer_objects
from ..operators.ops_capture import XRAY_OT_capture
from ..operators.ops_generate import XRAY_OT_generate
from ..operators.ops_import import XRAY_OT_import_xray
from ..operators.properties import copy_settings, preferences
from ..xray_addon.settings import CaptureSettings, GenerateSettings
from .widgets import draw_progress, draw_runtime, draw_text

if TYPE_CHECKING:
    from collections.abc import Iterable


class SidebarPanel(bpy.types.Panel):
    """Where all of X-Ray's panels are."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "X-Ray"
    layout: Any


class XRAY_PT_generate(SidebarPanel):
    """From one image to a mesh."""

    bl_label = "Generate"

    def draw(self, context: bpy.types.Context) -> None:
        """The image, the button, and how it goes."""
        layout, scene = self.layout, context.scene.xray.generate
        if not service.is_available():
            draw_text(layout, context, "The model runtime makes meshes from images.")
            draw_runtime(layout, context)
            return
        layout.template_ID_preview(scene, "image", open="image.open", hide_buttons=False)
        column = layout.column(heading="Keep")
        column.use_property_split = True
        column.use_property_decorate = False
        column.prop(scene, "keep_camera", text="View")
        column.prop(scene, "keep_layers", text="Layers")
        row = layout.row()
        row.scale_y = 1.4
        button = row.operator(XRAY_OT_generate.bl_idname, text="Generate", icon="MESH_DATA")
        copy_settings(GenerateSettings, scene, button)
        machine = preferences()
        if machine is not None:
            button.generator, button.device = machine.generator, machine.device
        button.image = scene.image.name if scene.image else ""
        button.keep_camera, button.keep_layers = scene.keep_camera, scene.keep_layers
        draw_progress(layout, context, XRAY_OT_generate)


class XRAY_PT_generate_settings(SidebarPanel):
    """How the model runs."""

    bl_label = "Settings"
    bl_parent_id = "XRAY_PT_generate"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Without a runtime there is nothing to set."""
        return service.is_available()

    def draw(self, context: bpy.types.Context) -> None:
        """Every setting of a generation; what depends on the machine is a preference."""
        machine = preferences()
        if machine is not None:
            _draw_properties(self.layout, machine, ("generator", "device"))
        _draw_properties(
            self.layout,
            context.scene.xray.generate,
            (
                "steps",
                "seed",
                "remove_background",
                "checkpoint",
            ),
        )


class XRAY_PT_capture(SidebarPanel):
    """From meshes to X-Rays."""

    bl_label = "Capture"

    def draw(self, context: bpy.types.Context) -> None:
        """The settings and the button."""
        layout, scene = self.layout, context.scene.xray.capture
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(scene, "camera", expand=True)
        sampled = layout.column()
        sampled.active = scene.camera == "sampled"
        sampled.prop(scene, "views")
        sampled.prop(scene, "seed")
        _draw_properties(layout, scene, ("layers", "size", "combine", "directory"))
        row = layout.row()
        row.scale_y = 1.4
        button = row.operator(
            XRAY_OT_capture.bl_idname, text="Capture Selected", icon="RENDERLAYERS"
        )
        copy_settings(CaptureSettings, scene, button)
        button.directory = scene.directory
        draw_progress(layout, context, XRAY_OT_capture)
        layout.operator(XRAY_OT_import_xray.bl_idname, icon="IMPORT")


class XRAY_PT_layers(SidebarPanel):
    """The layers of the active object."""

    bl_label = "Layers"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Only objects that came from an X-Ray have layers."""
        obj: Any = context.object
        return obj is not None and ("xray_hits" in obj or "xray_layer" in obj)

    def draw(self, context: bpy.types.Context) -> None:
        """Hits of each layer, with an eye where there is an object for it."""
        layers = layer_objects(context.object)
        column = self.layout.column(align=True)
        if layers:
            for obj in layers:
                row = column.row()
                row.prop(obj, "hide_viewport", text="", emboss=False)
                row.label(text=f"Layer {obj['xray_layer'] + 1}")
                row.label(text=f"{obj['xray_count']:,} hits")
            return
        for layer, hits in enumerate(context.object.get("xray_hits", ())):
            if hits:
                row = column.row()
                row.label(text=f"Layer {layer + 1}")
                row.label(text=f"{hits:,} hits")
        draw_text(self.layout, context, "Import as layers to show and hide them.")


class XRAY_PT_runtime(SidebarPanel):
    """The process that the model runs in."""

    bl_label = "Runtime"

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Until it is installed, the Generate panel has its button."""
        return service.is_available()

    def draw(self, context: bpy.types.Context) -> None:
        """Its state and its buttons."""
        draw_runtime(self.layout, context)


def _draw_properties(layout: Any, source: Any, names: Iterable[str]) -> None:
    column = layout.column()
    column.use_property_split = True
    column.use_property_decorate = False
    for name in names:
        column.prop(source, name)


CLASSES: tuple[type[Any], ...] = (
    XRAY_PT_generate,
    XRAY_PT_generate_settings,
    XRAY_PT_capture,
    XRAY_PT_layers,
    XRAY_PT_runtime,
)
