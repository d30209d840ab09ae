"""Menu entries. F3 only finds operators that are in a menu."""

from __future__ import annotations

from typing import Any

import bpy

from ..operators.dataset.ops import (
    XRAY_OT_dataset,
    XRAY_OT_dataset_cameras,
    XRAY_OT_dataset_preset_add,
    set_from_panel,
)
from ..operators.dataset.ops_capture import XRAY_OT_capture
from ..operators.dataset.ops_preview import XRAY_OT_preview
from ..operators.generate.ops import XRAY_OT_copy_command, XRAY_OT_generate, XRAY_OT_regenerate
from ..operators.generate.ops_cutout import XRAY_OT_preview_cutout
from ..operators.generate.ops_drop import XRAY_OT_paste_image
from ..operators.generate.ops_mask import XRAY_OT_paint_mask
from ..operators.layers.ops import CLASSES as LAYER_OPERATORS
from ..operators.layers.ops_import import XRAY_OT_import_xray
from ..operators.omage.ops import CLASSES as OMAGE_OPERATORS
from ..operators.runtime.ops import CLASSES as RUNTIME_OPERATORS
from ..operators.runtime.ops_weights import XRAY_OT_weights_download
from ..operators.slices.ops import CLASSES as SLICE_OPERATORS
from ..operators.tasks.ops import CLASSES as QUEUE_OPERATORS


class XRAY_MT_object(bpy.types.Menu):
    """All X-Ray operators, in the 3D view's Object menu."""

    bl_label = "X-Ray"

    def draw(self, context: bpy.types.Context) -> None:
        """List the operators."""
        layout = self.layout
        layout.operator(XRAY_OT_capture.bl_idname, icon="RENDERLAYERS")
        button = layout.operator(XRAY_OT_dataset.bl_idname, text="Make Dataset...", icon="FILE_3D")
        set_from_panel(button, context.scene)
        layout.operator(XRAY_OT_dataset_cameras.bl_idname, icon="CAMERA_DATA")
        layout.operator(XRAY_OT_dataset_preset_add.bl_idname)
        layout.operator(XRAY_OT_preview.bl_idname, text="Preview Dataset...", icon="IMAGE")
        layout.operator(XRAY_OT_generate.bl_idname, icon="IMAGE_DATA")
        layout.operator(XRAY_OT_weights_download.bl_idname, icon="IMPORT")
        layout.operator(XRAY_OT_paste_image.bl_idname, icon="PASTEDOWN")
        layout.operator(XRAY_OT_preview_cutout.bl_idname)
        layout.operator(XRAY_OT_paint_mask.bl_idname, icon="BRUSH_DATA")
        layout.operator(XRAY_OT_regenerate.bl_idname).another_seed = False
        again = layout.operator(XRAY_OT_regenerate.bl_idname, text="Regenerate with Another Seed")
        again.another_seed = True
        layout.operator(XRAY_OT_copy_command.bl_idname)
        layout.operator(XRAY_OT_import_xray.bl_idname, icon="IMPORT")
        for operators in (
            LAYER_OPERATORS,
            OMAGE_OPERATORS,
            SLICE_OPERATORS,
            QUEUE_OPERATORS,
            RUNTIME_OPERATORS,
        ):
            layout.separator()
            for operator in operators:
                layout.operator(operator.bl_idname)


def _object_menu(self: Any, _context: bpy.types.Context) -> None:
    self.layout.separator()
    self.layout.menu("XRAY_MT_object", icon="RENDERLAYERS")


def _add_menu(self: Any, _context: bpy.types.Context) -> None:
    self.layout.separator()
    self.layout.operator(XRAY_OT_generate.bl_idname, text="Mesh from Image...", icon="IMAGE_DATA")


def _import_menu(self: Any, _context: bpy.types.Context) -> None:
    self.layout.operator(XRAY_OT_import_xray.bl_idname, text="X-Ray (.npz)")


CLASSES: tuple[type[Any], ...] = (XRAY_MT_object,)

ENTRIES = (
    ("VIEW3D_MT_object", _object_menu),
    ("VIEW3D_MT_add", _add_menu),
    ("TOPBAR_MT_file_import", _import_menu),
)


def register() -> None:
    """Append the entries to Blender's menus."""
    for menu, entry in ENTRIES:
        getattr(bpy.types, menu).append(entry)


def unregister() -> None:
    """Undo `register`."""
    for menu, entry in ENTRIES:
        getattr(bpy.types, menu).remove(entry)
