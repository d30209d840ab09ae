"""Operators on slices: show and save an object's slices, and make a mesh from twelve pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy

from ...xray_addon.errors import XRayError
from ...xray_addon.settings.result import ResultSettings
from ...xray_addon.settings.slices import SliceSettings
from ...xray_addon.systems.slice3d import SYSTEM, Slice3DSettings
from ...xray_addon.systems.system import Inputs
from ..convert.images import ensure_image_editor
from ..dataset.ops_capture import selected_solids
from ..generate.generation import generate_steps
from ..generate.settings import panel_values
from ..layers.layers import layers_of
from ..properties import (
    PATH_OPTIONS,
    absolute_path,
    output_path,
    preferences,
    setting_property,
    settings_from_properties,
    with_settings,
)
from ..runtime import service
from ..tasks.watching import OperatorResult, TaskOperator
from .slicing import save_slices, show_slices, slice_captured, slice_objects

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..tasks import jobs


@with_settings(SliceSettings)
class XRAY_OT_slices(bpy.types.Operator):
    """Show the selected objects, or a captured X-Ray, as twelve slices in the Image Editor"""

    bl_idname = "xray.slices"
    bl_label = "Show Slices"
    bl_options = {"REGISTER", "UNDO"}

    directory: bpy.props.StringProperty(
        name="Folder",
        description="Where X_1.png to Z_4.png are written too; empty for nowhere",
        subtype="DIR_PATH",
        options=PATH_OPTIONS | {"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Require selected objects with faces, or an active X-Ray."""
        if not selected_solids(context) and not _is_captured(context.object):
            cls.poll_message_set("Select objects with faces, or an imported X-Ray")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> OperatorResult:
        """Draw and show the slices; write them if a folder is given."""
        settings = settings_from_properties(SliceSettings, self)
        try:
            pictures = draw_slices(context, settings)
            if self.directory:
                save_slices(pictures, output_path(self.directory))
            ensure_image_editor(show_slices(pictures))
        except XRayError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        written = f" written to {self.directory}" if self.directory else ""
        self.report({"INFO"}, f"Twelve slices{written}")
        return {"FINISHED"}


class XRAY_OT_save_slices(bpy.types.Operator):
    """Write the twelve slices of the selected objects, or of a captured X-Ray, as PNG files"""

    bl_idname = "xray.save_slices"
    bl_label = "Save Slices"
    bl_options = {"REGISTER"}

    directory: bpy.props.StringProperty(
        name="Folder",
        description="Where X_1.png to Z_4.png are written",
        subtype="DIR_PATH",
        options=PATH_OPTIONS,
    )
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """As for showing slices."""
        return XRAY_OT_slices.poll(context)

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> OperatorResult:
        """Ask for the folder."""
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> OperatorResult:
        """Write the slices with the panel's settings."""
        if not self.directory:
            self.report({"ERROR"}, "There is no folder to write to. Choose one.")
            return {"CANCELLED"}
        scene: Any = context.scene
        settings = settings_from_properties(SliceSettings, scene.xray.slices)
        try:
            pictures = draw_slices(context, settings)
            save_slices(pictures, output_path(self.directory))
        except XRayError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self.report({"INFO"}, f"Twelve slices written to {self.directory}")
        return {"FINISHED"}


class XRAY_OT_slices_to_mesh(TaskOperator):
    """Make a mesh from twelve slices of your own: X_1.png to Z_4.png in one folder"""

    bl_idname = "xray.slices_to_mesh"
    bl_label = "Slices to Mesh"
    # Without REGISTER, because the redo panel would run the model again at every change.
    bl_options = {"UNDO"}

    directory: bpy.props.StringProperty(
        name="Folder",
        description="The folder with the twelve pictures",
        subtype="DIR_PATH",
        options={"SKIP_SAVE"},
    )
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN"})
    checkpoint: bpy.props.StringProperty(
        name="Checkpoint",
        description="Folder or file of the weights; empty for the usual place",
        subtype="FILE_PATH",
        options=PATH_OPTIONS,
    )
    grid_resolution: setting_property(Slice3DSettings.__dataclass_fields__["grid_resolution"])

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Require a runtime and Object Mode."""
        if context.mode != "OBJECT":
            cls.poll_message_set("Go to Object Mode first")
            return False
        return service.poll_available(cls)

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> OperatorResult:
        """Ask for the folder; the other settings are the panel's."""
        scene: Any = context.scene
        own = scene.xray.generate.systems.slice3d
        for name in ("checkpoint", "grid_resolution"):
            if not self.properties.is_property_set(name):
                setattr(self, name, getattr(own, name))
        if not self.directory:
            context.window_manager.fileselect_add(self)
            return {"RUNNING_MODAL"}
        return self.execute(context)

    @classmethod
    def circumstances(cls, context: bpy.types.Context) -> Any:
        """The settings of Slice3D, and what is installed."""
        return panel_values(context.scene, SYSTEM), service.is_available()

    def work(self, context: bpy.types.Context) -> jobs.Steps:
        """Start the generation."""
        if not self.directory:
            raise XRayError("no_folder", "There is no folder of slices.", "Choose one.")
        folder = absolute_path(self.directory)
        chosen = preferences()
        settings = Slice3DSettings(
            branch="slices",
            checkpoint=bpy.path.abspath(self.checkpoint),
            grid_resolution=self.grid_resolution,
            device=chosen.device if chosen else "auto",
        )
        scene: Any = context.scene
        result = settings_from_properties(ResultSettings, scene.xray.generate)
        return generate_steps(
            Inputs(image=first_slice(folder)),
            settings,
            name=folder.name,
            result=result,
            keep_camera=scene.xray.generate.keep_camera,
            keep_layers=scene.xray.generate.keep_layers,
        )

    def summary(self, result: Any) -> tuple[str, str]:
        """The new mesh."""
        return "INFO", f"Generated {result.name}: {len(result.data.polygons):,} faces"


def draw_slices(context: bpy.types.Context, settings: SliceSettings) -> NDArray[np.uint8]:
    """Pictures (12, S, S, 4) of the active X-Ray or, if another object is selected, of the selected
    ones."""
    solids = selected_solids(context)
    if _is_captured(context.object) and (context.object.select_get() or not solids):
        return slice_captured(context.object, settings)
    return slice_objects(solids, settings)


def first_slice(folder: Path) -> Path:
    """The file of one slice in `folder`, which stands for all of them.

    Raises XRayError `missing_slices`.
    """
    found = sorted(folder.glob("[XYZ]_[1-4].*")) if folder.is_dir() else []
    if not found:
        raise XRayError(
            "missing_slices",
            f"{folder} holds no slices.",
            "Choose a folder with X_1.png to Z_4.png.",
        )
    return found[0]


def _is_captured(obj: Any) -> bool:
    return obj is not None and (layers_of(obj) is not None or "xray_file" in obj)


CLASSES: tuple[type[Any], ...] = (XRAY_OT_slices, XRAY_OT_save_slices, XRAY_OT_slices_to_mesh)
