"""Menu entries. F3 only finds operators that are in a menu."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import bpy

from ..operators.dataset.ops import (
    XRAY_OT_dataset,
    XRAY_OT_dataset_cameras,
    XRAY_OT_dataset_dismiss,
    XRAY_OT_dataset_preset_add,
    set_from_panel,
)
from ..operators.dataset.ops_capture import XRAY_OT_capture, asks_for_folder
from ..operators.dataset.ops_preview import XRAY_OT_preview
from ..operators.generate.ops import CLASSES as GENERATE_OPERATORS
from ..operators.generate.ops import XRAY_OT_generate
from ..operators.generate.ops_cutout import XRAY_OT_preview_cutout
from ..operators.generate.ops_drop import XRAY_OT_paste_image
from ..operators.generate.ops_mask import XRAY_OT_paint_mask
from ..operators.generate.ops_result import XRAY_OT_apply_result, XRAY_OT_result_preset_add
from ..operators.generate.settings import set_from_panel as set_generation
from ..operators.layers.ops import CLASSES as LAYER_OPERATORS
from ..operators.layers.ops import XRAY_OT_rebuild, set_from_layers
from ..operators.layers.ops_import import XRAY_OT_import_xray
from ..operators.omage.ops import (
    XRAY_OT_object_to_omage,
    XRAY_OT_omage_material,
    XRAY_OT_show_omage,
)
from ..operators.omage.ops import set_from_panel as set_material
from ..operators.properties import chosen_system, copy_settings
from ..operators.runtime.ops import CLASSES as RUNTIME_OPERATORS
from ..operators.runtime.ops import XRAY_OT_runtime_install_offline, XRAY_OT_runtime_remove
from ..operators.runtime.ops_weights import XRAY_OT_weights_download
from ..operators.slices.ops import XRAY_OT_save_slices, XRAY_OT_slices, XRAY_OT_slices_to_mesh
from ..operators.tasks.ops import CLASSES as QUEUE_OPERATORS
from ..xray_addon.settings.capture import CaptureSettings
from ..xray_addon.settings.dataset import DatasetSettings
from ..xray_addon.settings.omage import OmageSettings
from ..xray_addon.settings.result import ResultSettings
from ..xray_addon.settings.slices import SliceSettings
from ..xray_addon.systems.system import Need
from .widgets import draw_omage_to_object

MESH_FROM_IMAGE = "Mesh from Image…"

# Operators whose menu entries end in an ellipsis, because they open a dialog.
DIALOGS = (
    XRAY_OT_dataset_preset_add,
    XRAY_OT_result_preset_add,
    XRAY_OT_import_xray,
    XRAY_OT_preview,
    XRAY_OT_runtime_install_offline,
    XRAY_OT_runtime_remove,
    XRAY_OT_save_slices,
    XRAY_OT_slices_to_mesh,
    XRAY_OT_weights_download,
)


def _add_entry(layout: Any, operator: type[Any], icon: Any = "NONE") -> Any:
    text = operator.bl_label + ("…" if operator in DIALOGS else "")
    return layout.operator(operator.bl_idname, text=text, icon=icon)


class XRAY_MT_generate(bpy.types.Menu):
    """Makes a mesh from an image."""

    bl_label = "Generate"

    def draw(self, context: bpy.types.Context) -> None:
        """List the operators."""
        layout = self.layout
        layout.operator(XRAY_OT_generate.bl_idname, text=MESH_FROM_IMAGE, icon="IMAGE_DATA")
        layout.operator(XRAY_OT_paste_image.bl_idname, icon="PASTEDOWN")
        layout.operator(XRAY_OT_preview_cutout.bl_idname)
        layout.operator(XRAY_OT_paint_mask.bl_idname, icon="BRUSH_DATA")
        layout.separator()
        for operator in GENERATE_OPERATORS:
            if operator is not XRAY_OT_generate:
                layout.operator(operator.bl_idname)
        apply = layout.operator(XRAY_OT_apply_result.bl_idname)
        copy_settings(fields(ResultSettings), context.scene.xray.generate, apply)
        _add_entry(layout, XRAY_OT_result_preset_add)
        layout.separator()
        _add_entry(layout, XRAY_OT_slices_to_mesh)
        button = layout.operator(XRAY_OT_omage_material.bl_idname)
        set_material(button, context.scene.xray.generate)
        layout.separator()
        layout.menu("XRAY_MT_runtime")


class XRAY_MT_runtime(bpy.types.Menu):
    """The runtime, its weights and its queue."""

    bl_label = "Runtime"

    def draw(self, _context: bpy.types.Context) -> None:
        """List the operators."""
        layout = self.layout
        _add_entry(layout, XRAY_OT_weights_download, "IMPORT")
        for operators in (RUNTIME_OPERATORS, QUEUE_OPERATORS):
            layout.separator()
            for operator in operators:
                _add_entry(layout, operator)


class XRAY_MT_capture(bpy.types.Menu):
    """Makes X-Rays and datasets of objects, and objects of X-Rays."""

    bl_label = "Capture"

    def draw(self, context: bpy.types.Context) -> None:
        """List the operators."""
        layout, panel = self.layout, context.scene.xray
        text = "Capture Selected" + ("…" if asks_for_folder(panel.capture.directory) else "")
        button = layout.operator(XRAY_OT_capture.bl_idname, text=text, icon="RENDERLAYERS")
        copy_settings(fields(CaptureSettings), panel.capture, button)
        button.directory = panel.capture.directory
        _add_entry(layout, XRAY_OT_import_xray, "IMPORT")
        layout.separator()
        button = layout.operator(XRAY_OT_dataset.bl_idname, text="Make Dataset…", icon="FILE_3D")
        set_from_panel(button, context.scene)
        _add_entry(layout, XRAY_OT_preview, "IMAGE")
        button = layout.operator(XRAY_OT_dataset_cameras.bl_idname, icon="CAMERA_DATA")
        copy_settings(fields(DatasetSettings), panel.dataset, button)
        _add_entry(layout, XRAY_OT_dataset_preset_add)
        layout.operator(XRAY_OT_dataset_dismiss.bl_idname)
        layout.separator()
        for operator in LAYER_OPERATORS:
            button = layout.operator(operator.bl_idname)
            if operator is XRAY_OT_rebuild:
                set_from_layers(button, context)
        layout.separator()
        button = layout.operator(XRAY_OT_object_to_omage.bl_idname)
        copy_settings(fields(OmageSettings), panel.omage, button)
        draw_omage_to_object(layout, context)
        layout.operator(XRAY_OT_show_omage.bl_idname)
        layout.separator()
        button = layout.operator(XRAY_OT_slices.bl_idname)
        copy_settings(fields(SliceSettings), panel.slices, button)
        _add_entry(layout, XRAY_OT_save_slices)


class XRAY_MT_object(bpy.types.Menu):
    """All X-Ray operators, in the 3D view's Object menu."""

    bl_label = "X-Ray"

    def draw(self, _context: bpy.types.Context) -> None:
        """Draw the two menus."""
        self.layout.menu("XRAY_MT_generate", icon="IMAGE_DATA")
        self.layout.menu("XRAY_MT_capture", icon="RENDERLAYERS")


def _object_menu(self: Any, _context: bpy.types.Context) -> None:
    self.layout.separator()
    self.layout.menu("XRAY_MT_object", icon="RENDERLAYERS")


def _add_menu(self: Any, _context: bpy.types.Context) -> None:
    self.layout.separator()
    self.layout.operator(XRAY_OT_generate.bl_idname, text=MESH_FROM_IMAGE, icon="IMAGE_DATA")


def _image_menu(self: Any, context: bpy.types.Context) -> None:
    """In the Image Editor: generate from the image shown there, with the panel's settings."""
    image = getattr(context.space_data, "image", None)
    if image is None or chosen_system().image is Need.NONE:
        return
    self.layout.separator()
    button = self.layout.operator(
        XRAY_OT_generate.bl_idname, text="Generate from This Image", icon="MESH_DATA"
    )
    panel = context.scene.xray.generate
    set_generation(button, panel)
    button.image = image.name


def _import_menu(self: Any, _context: bpy.types.Context) -> None:
    self.layout.operator(XRAY_OT_import_xray.bl_idname, text="X-Ray (.npz)")


CLASSES: tuple[type[Any], ...] = (
    XRAY_MT_runtime,
    XRAY_MT_generate,
    XRAY_MT_capture,
    XRAY_MT_object,
)

ENTRIES = (
    ("VIEW3D_MT_object", _object_menu),
    ("VIEW3D_MT_add", _add_menu),
    ("TOPBAR_MT_file_import", _import_menu),
    ("IMAGE_MT_image", _image_menu),
)


def register() -> None:
    """Append the entries to Blender's menus."""
    for menu, entry in ENTRIES:
        getattr(bpy.types, menu).append(entry)


def unregister() -> None:
    """Undo `register`."""
    for menu, entry in ENTRIES:
        getattr(bpy.types, menu).remove(entry)
