"""The operator `xray.preview`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bpy

from ...xray_addon.errors import XRayError
from ...xray_addon.pictures.contact_sheet import contact_sheet
from ..convert.images import ensure_image_editor, show
from ..properties import absolute_path, preferences
from .preview import dataset_views

if TYPE_CHECKING:
    from ..tasks.watching import OperatorResult


class XRAY_OT_preview(bpy.types.Operator):
    """Show a contact sheet of a dataset in the Image Editor"""

    bl_idname = "xray.preview"
    bl_label = "Preview X-Ray Dataset"
    bl_options = {"REGISTER", "UNDO"}

    directory: bpy.props.StringProperty(
        name="Folder", description="The dataset's folder", subtype="DIR_PATH"
    )
    uid: bpy.props.StringProperty(
        name="Item", description="Name of the item; empty for a random sample"
    )
    sample: bpy.props.IntProperty(
        name="Sample", description="Number of random items", default=4, min=1, max=100
    )
    seed: bpy.props.IntProperty(name="Seed", description="Seed of the sample", min=0)
    layers: bpy.props.IntProperty(
        name="Layers", description="Layers to show", default=8, min=1, max=32
    )
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN"})

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> OperatorResult:
        """Ask for the folder, starting in the preferences' folder for datasets."""
        if not self.directory:
            chosen = preferences()
            self.directory = str(chosen.dataset_folder) if chosen else ""
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, _context: bpy.types.Context) -> OperatorResult:
        """Show the contact sheet."""
        try:
            if not self.directory:
                raise XRayError("no_folder", "There is no folder to look at.", "Choose one.")
            views = dataset_views(
                absolute_path(self.directory), uid=self.uid, sample=self.sample, seed=self.seed
            )
            sheet = contact_sheet(views, layers=self.layers)
        except XRayError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        ensure_image_editor(show(sheet))
        self.report({"INFO"}, f"Views in the preview: {len(views)}")
        return {"FINISHED"}


CLASSES: tuple[type[Any], ...] = (XRAY_OT_preview,)
