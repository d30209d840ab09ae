"""The operator `xray.generate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bpy

from ..xray_addon.errors import XRayError
from ..xray_addon.settings import GenerateSettings
from . import runtime_service as service
from .generate import generate_steps
from .properties import absolute_path, preferences, read_settings, with_settings
from .watching import Result, TaskOperator

if TYPE_CHECKING:
    from . import jobs


@with_settings(GenerateSettings)
class XRAY_OT_generate(TaskOperator):
    """Make a mesh from one image, at the 3D cursor"""

    bl_idname = "xray.generate"
    bl_label = "Generate Mesh from Image"
    # Not REGISTER: the redo panel would run the model again at every change.
    bl_options = {"UNDO"}

    filepath: bpy.props.StringProperty(
        name="Image File", subtype="FILE_PATH", options={"SKIP_SAVE"}
    )
    image: bpy.props.StringProperty(
        name="Image",
        description="Name of an image in this file; goes before the image file",
        options={"SKIP_SAVE"},
    )
    keep_camera: bpy.props.BoolProperty(
        name="Keep View", description="Add a camera that sees the mesh as the image shows it"
    )
    keep_layers: bpy.props.BoolProperty(
        name="Keep Layers", description="Add the predicted layers as hidden point objects"
    )
    filter_image: bpy.props.BoolProperty(default=True, options={"HIDDEN"})
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """A runtime must be there, and the mesh be added in Object Mode."""
        if context.mode != "OBJECT":
            cls.poll_message_set("Go to Object Mode first")
            return False
        if not service.is_available():
            cls.poll_message_set("Install the runtime first (sidebar, X-Ray, Runtime)")
            return False
        return True

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> Result:
        """Ask for a file where no image is given."""
        chosen = preferences()
        if chosen and not self.properties.is_property_set("device"):
            self.device = chosen.device
        if chosen and not self.properties.is_property_set("generator"):
            self.generator = chosen.generator
        if not self.image and not self.filepath:
            context.window_manager.fileselect_add(self)
            return {"RUNNING_MODAL"}
        return self.execute(context)

    def work(self, _context: bpy.types.Context) -> jobs.Steps:
        """Generate from the image that is given."""
        return generate_steps(
            self._source(),
            read_settings(GenerateSettings, self),
            keep_camera=self.keep_camera,
            keep_layers=self.keep_layers,
        )

    def _source(self) -> Any:
        if self.image:
            image: Any = bpy.data.images.get(self.image)
            if image is None:
                raise XRayError(
                    "missing_image", f"There is no image {self.image}.", "Choose another one."
                )
            return image
        if not self.filepath:
            raise XRayError("missing_image", "No image is chosen.", "Choose an image.")
        return absolute_path(self.filepath)

    def summary(self, result: Any) -> tuple[str, str]:
        """The new mesh."""
        return "INFO", f"Generated {result.name}: {len(result.data.polygons):,} faces"


CLASSES: tuple[type[Any], ...] = (XRAY_OT_generate,)
