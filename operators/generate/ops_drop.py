"""Accepts images that are dropped on the 3D view or pasted."""

from __future__ import annotations

from typing import Any

import bpy

from ...xray_addon.files.images import IMAGE_SUFFIXES
from ..runtime import service
from ..tasks.watching import OperatorResult
from .ops import XRAY_OT_generate


class XRAY_FH_image(bpy.types.FileHandler):
    """Generates meshes from image files that are dropped on the 3D view."""

    bl_idname = "XRAY_FH_image"
    bl_label = "Generate Mesh (X-Ray)"
    bl_import_operator = XRAY_OT_generate.bl_idname
    bl_file_extensions = ";".join(sorted(IMAGE_SUFFIXES))

    @classmethod
    def poll_drop(cls, context: bpy.types.Context) -> bool:
        """Require the 3D view, Object Mode and a runtime."""
        area = context.area
        seen = area is not None and area.type == "VIEW_3D"
        return seen and context.mode == "OBJECT" and service.is_available()


class XRAY_OT_paste_image(bpy.types.Operator):
    """Use the image in the clipboard to generate a mesh"""

    bl_idname = "xray.paste_image"
    bl_label = "Paste Image"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Require a window: pasting needs an area that briefly becomes an Image Editor."""
        if context.area is None:
            cls.poll_message_set("This needs a window")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> OperatorResult:
        """Paste the image into the file and choose it in the panel."""
        area: Any = context.area
        before, known = area.type, set(bpy.data.images)
        area.type = "IMAGE_EDITOR"
        try:
            # If the clipboard has no image, the operator's poll fails and this raises.
            bpy.ops.image.clipboard_paste()
        except RuntimeError:
            self.report(
                {"ERROR"}, "The clipboard has no image. On Linux, pasting images needs Wayland"
            )
        finally:
            area.type = before
        pasted = [image for image in bpy.data.images if image not in known]
        if not pasted:
            return {"CANCELLED"}
        scene: Any = context.scene
        scene.xray.generate.image = pasted[0]
        return {"FINISHED"}


CLASSES: tuple[type[Any], ...] = (XRAY_FH_image, XRAY_OT_paste_image)
