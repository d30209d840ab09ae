"""The operator `xray.import_xray`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bpy

from ...xray_addon.errors import XRayError
from ..convert.meshes import make_active
from ..properties import absolute_path
from .layers import import_xray

if TYPE_CHECKING:
    from ..tasks.watching import OperatorResult


class XRAY_OT_import_xray(bpy.types.Operator):
    """Add an X-Ray file to the scene, using the camera in the transforms.json beside it"""

    bl_idname = "xray.import_xray"
    bl_label = "Import X-Ray"
    bl_options = {"REGISTER", "UNDO"}

    filepath: bpy.props.StringProperty(
        name="X-Ray File", subtype="FILE_PATH", options={"SKIP_SAVE"}
    )
    form: bpy.props.EnumProperty(
        name="As",
        description="What the X-Ray becomes in the scene",
        items=[
            ("mesh", "Mesh", "One reconstructed mesh"),
            ("points", "Points", "Every hit as a point"),
            ("layers", "Layers", "One mesh per layer, for peeling and editing"),
        ],
    )
    filter_glob: bpy.props.StringProperty(default="*.npz", options={"HIDDEN"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Require Object Mode."""
        if context.mode != "OBJECT":
            cls.poll_message_set("Go to Object Mode first")
            return False
        return True

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> OperatorResult:
        """Ask for a file."""
        if self.filepath:
            return self.execute(context)
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, _context: bpy.types.Context) -> OperatorResult:
        """Import the file."""
        try:
            objects = import_xray(absolute_path(self.filepath), self.form)
        except XRayError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        make_active(objects[0])
        for obj in objects[1:]:
            obj.select_set(True)
        return {"FINISHED"}


CLASSES: tuple[type[Any], ...] = (XRAY_OT_import_xray,)
