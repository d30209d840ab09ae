"""The Generate panel: makes a mesh from an image, or from the system's other inputs."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import bpy

from ..operators.generate.generation import IMAGES
from ..operators.generate.ops import (
    XRAY_OT_another_seed,
    XRAY_OT_copy_command,
    XRAY_OT_generate,
    XRAY_OT_keep_layers,
    XRAY_OT_mirror_back,
    XRAY_OT_set_upright,
    XRAY_OT_use_seed,
)
from ..operators.generate.ops_cutout import XRAY_OT_preview_cutout, asked, describe, shown
from ..operators.generate.ops_drop import XRAY_OT_paste_image
from ..operators.generate.ops_mask import XRAY_OT_paint_mask
from ..operators.generate.ops_result import (
    PRESETS,
    XRAY_OT_apply_result,
    XRAY_OT_result_preset_add,
)
from ..operators.generate.settings import panel_settings, set_from_panel
from ..operators.interface.drawing import draw_properties
from ..operators.interface.icons import icon_of
from ..operators.interface.translation import translated
from ..operators.properties import chosen_system, copy_settings, preferences, system_settings
from ..operators.runtime import service
from ..xray_addon.settings.result import ResultSettings
from ..xray_addon.systems.system import Need, Output, System
from .weights import draw_missing_weights
from .widgets import PresetsPanel, SidebarPanel, draw_install, draw_progress, draw_text

CUTOUT_SCALE = 9.0  # times the size of an icon
# What starts from a generated mesh, with icons.
AGAIN = (
    (XRAY_OT_another_seed, "FILE_REFRESH"),
    (XRAY_OT_set_upright, "EMPTY_SINGLE_ARROW"),
    (XRAY_OT_mirror_back, "MOD_MIRROR"),
    (XRAY_OT_keep_layers, "RENDERLAYERS"),
)


class XRAY_PT_generate(SidebarPanel):
    """Generate a mesh from one image."""

    bl_label = "Generate"

    def draw(self, context: bpy.types.Context) -> None:
        """Draw the image, the button and the progress."""
        layout, scene = self.layout, context.scene.xray.generate
        if not service.is_available():
            draw_install(layout, context)
            return
        system = chosen_system()
        _draw_inputs(layout, context, system)
        column = layout.column(heading="Keep")
        column.use_property_split = True
        column.use_property_decorate = False
        column.prop(scene, "keep_camera", text="View")
        if Output.XRAY in system.outputs or Output.PICTURES in system.outputs:
            text = "Layers" if Output.XRAY in system.outputs else "Pictures"
            column.prop(scene, "keep_layers", text=text)
        lacks_weights = draw_missing_weights(layout, context)
        row = layout.row()
        row.enabled = not lacks_weights
        row.scale_y = 1.4
        asks = system.image is Need.REQUIRED and scene.image is None
        asks |= system.category is Need.REQUIRED and not system_settings(scene, system).category
        text = "Generate…" if asks else "Generate"
        button = row.operator(XRAY_OT_generate.bl_idname, text=text, icon="MESH_DATA")
        set_from_panel(button, scene)
        _draw_again(layout, context)
        again = (operator for operator, _ in AGAIN)
        draw_progress(layout, context, XRAY_OT_generate, *again, XRAY_OT_apply_result)


def _draw_inputs(layout: Any, context: Any, system: System) -> None:
    """Draw the inputs that the system takes."""
    scene = context.scene.xray.generate
    if system.image is not Need.NONE:
        layout.template_ID_preview(scene, "image", open="image.open", hide_buttons=False)
        layout.operator(XRAY_OT_paste_image.bl_idname, icon="PASTEDOWN")
    if system.image is Need.OPTIONAL and scene.image is None:
        draw_text(layout, context, "Without an image, the object is made up.")
    if system.mask is not Need.NONE:
        layout.template_ID(scene, "mask", open="image.open", text="Mask")
        layout.operator(XRAY_OT_paint_mask.bl_idname, icon="BRUSH_DATA")
    if system.categories:
        draw_properties(layout, system_settings(scene, system), ("category",))


def _draw_again(layout: Any, context: bpy.types.Context) -> None:
    """Draw the buttons for the active object, if it is a generated mesh."""
    obj: Any = context.object
    if obj is None or "xray_settings" not in obj:
        return
    column = layout.column(align=True)
    row = column.row(align=True)
    row.label(text=translated("Seed {}").format(obj["xray_settings"]["seed"]))
    row.operator(XRAY_OT_use_seed.bl_idname, text="", icon="LOOP_BACK")
    row.operator(XRAY_OT_copy_command.bl_idname, text="", icon="COPYDOWN")
    for operator, icon in AGAIN:
        column.operator(operator.bl_idname, icon=icon)


class XRAY_PT_generate_cutout(SidebarPanel):
    """The part of the image that the model sees."""

    bl_label = "Cut-Out"
    bl_parent_id = "XRAY_PT_generate"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Require a runtime, and a system that takes an image."""
        return service.is_available() and chosen_system().image is not Need.NONE

    def draw(self, context: bpy.types.Context) -> None:
        """Draw how the object is cut out, and the resulting picture."""
        layout, scene = self.layout, context.scene.xray.generate
        column = layout.column()
        column.use_property_split = True
        column.use_property_decorate = False
        column.prop(scene, "remove_background", text="Method")
        column.prop(scene, "margin")
        layout.operator(XRAY_OT_preview_cutout.bl_idname, icon="IMAGE_ALPHA")
        draw_progress(layout, context, XRAY_OT_preview_cutout)
        latest = shown(scene)
        if latest is None:
            return
        fresh = latest.asked == asked(scene)
        column = layout.column()
        column.active = fresh
        text = describe(latest.cut) if fresh else "Outdated: the settings have changed"
        column.label(text=text)
        column.template_icon(icon_of("cutout", latest.cut.picture), scale=CUTOUT_SCALE)


class XRAY_PT_generate_settings(SidebarPanel):
    """How the model runs."""

    bl_label = "Settings"
    bl_parent_id = "XRAY_PT_generate"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Require a runtime."""
        return service.is_available()

    def draw(self, context: bpy.types.Context) -> None:
        """Draw all settings of a generation; those that depend on the machine are preferences."""
        machine = preferences()
        if machine is not None:
            draw_properties(self.layout, machine, ("generator", "device"))
        scene, system = context.scene.xray.generate, chosen_system()
        own = system_settings(scene, system)
        names = [item.name for item in system.settings.own_fields()]
        draw_properties(
            self.layout, own, [name for name in names if system.settings.counts(name, own)]
        )
        shared = ["seed"] if system.seeded else []
        draw_properties(self.layout, scene, [*shared, "variations"])
        given = [part for part in IMAGES if getattr(scene, part)]
        if scene.variations > 1 and not panel_settings(scene).seed_matters(given):
            draw_text(self.layout, context, "With these settings all of them are alike.", "INFO")
        draw_properties(self.layout, own, ("checkpoint",))


class XRAY_PT_result_presets(PresetsPanel, bpy.types.Panel):
    """Named settings of the result."""

    bl_label = "Result Presets"
    preset_subdir = PRESETS
    preset_add_operator = XRAY_OT_result_preset_add.bl_idname


class XRAY_PT_generate_result(SidebarPanel):
    """How the generated mesh is finished."""

    bl_label = "Result"
    bl_parent_id = "XRAY_PT_generate"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Require a runtime."""
        return service.is_available()

    def draw_header_preset(self, _context: bpy.types.Context) -> None:
        """Draw the menu of presets."""
        XRAY_PT_result_presets.draw_panel_header(self.layout)

    def draw(self, context: bpy.types.Context) -> None:
        """Draw the settings that are used, and the button that applies them to an existing mesh."""
        layout, scene = self.layout, context.scene.xray.generate
        names = [item.name for item in fields(ResultSettings)]
        draw_properties(
            layout, scene, [name for name in names if ResultSettings.counts(name, scene)]
        )
        button = layout.operator(XRAY_OT_apply_result.bl_idname, icon="CHECKMARK")
        copy_settings(fields(ResultSettings), scene, button)


CLASSES: tuple[type[Any], ...] = (
    XRAY_PT_generate,
    XRAY_PT_generate_cutout,
    XRAY_PT_generate_settings,
    XRAY_PT_result_presets,
    XRAY_PT_generate_result,
)
