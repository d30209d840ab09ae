"""Images that are dropped on the 3D view, or pasted."""

from __future__ import annotations

from typing import Any

import bpy

from ..runtime import service
from ..tasks.watching import OperatorResult
from .generation import IMAGE_SUFFIXES
from .ops import XRAY_OT_generate


class XRAY_FH_image(bpy.types.FileHandler):
    """Image files that are dropped on the 3D view become meshes."""

    bl_idname = "XRAY_FH_image"
    bl_label = "Generate Mesh (X-Ray)"
    bl_import_operator = XRAY_OT_generate.bl_idname
    bl_file_extensions = ";".join(sorted(IMAGE_SUFFIXES))

    @classmethod
    def poll_drop(cls, context: bpy.types.Context) -> bool:
        """In the 3D view, where the mesh can be added and there is a runtime to make it."""
        area = context.area
        seen = area is not None and area.type == "VIEW_3D"
        return seen and context.mode == "OBJECT" and service.is_available()


class XRAY_OT_paste_image(bpy.types.Operator):
    """Take the image in the clipboard as the one to make a mesh from"""

    bl_idname = "xray.paste_image"
    bl_label = "Paste Image"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Blender pastes images in an area that can become an Image Editor for a moment."""
        if context.area is None:
            cls.poll_message_set("This needs a window")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> OperatorResult:
        """Paste it into the file and show it in the panel."""
        area: Any = context.area
        before, known = area.type, set(bpy.data.images)
        area.type = "IMAGE_EDITOR"
        try:
            # Its poll is false, and this raises, where the clipboard holds no image.
            bpy.ops.image.clipboard_paste()
        except RuntimeError:
            self.report(
                {"ERROR"}, "Blender finds no image in the clipboard. Under Linux it needs Wayland"
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
