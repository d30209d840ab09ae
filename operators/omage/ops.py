"""Operators that convert between objects and omages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np
from mathutils import Matrix

from ...xray_addon.errors import XRayError
from ...xray_addon.omage import Omage
from ...xray_addon.omage.pictures import MEANINGS, write_pictures
from ...xray_addon.settings.omage import OmageSettings
from ...xray_addon.systems.omages import SYSTEM, OmagesSettings
from ..convert import active_collection
from ..convert.images import ensure_image_editor
from ..convert.meshes import make_active
from ..dataset.ops_capture import selected_solids
from ..generate.placing import free_place, visible_boxes
from ..generate.settings import panel_values
from ..properties import (
    PATH_OPTIONS,
    absolute_path,
    copy_settings,
    output_path,
    preferences,
    settings_from_properties,
    system_settings,
    with_settings,
)
from ..results.finishing import vertex_positions
from ..runtime import service
from ..tasks.watching import OperatorResult, TaskOperator
from .editor import (
    NAME_KEY,
    Origin,
    read_shown,
    show_omage,
    show_view,
    shown_name,
    shown_origin,
)
from .encoding import encode_objects
from .material import material_steps
from .objects import add_omage

if TYPE_CHECKING:
    from ..tasks import jobs


@with_settings(OmageSettings)
class XRAY_OT_object_to_omage(bpy.types.Operator):
    """Make one image of the selected objects: positions, normals and materials over their UVs"""

    bl_idname = "xray.object_to_omage"
    bl_label = "Object to Omage"
    bl_options = {"REGISTER", "UNDO"}

    filepath: bpy.props.StringProperty(
        name="File",
        description="Also write the omage to this .npz; empty for the Image Editor alone",
        subtype="FILE_PATH",
        options=PATH_OPTIONS | {"SKIP_SAVE"},
    )
    pictures: bpy.props.BoolProperty(
        name="Pictures",
        description="Also write 16-bit PNG files into a folder beside the file",
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Require selected objects that may have faces."""
        if context.mode != "OBJECT":
            cls.poll_message_set("Go to Object Mode first")
            return False
        if not selected_solids(context):
            cls.poll_message_set("Select one or more objects with faces")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> OperatorResult:
        """Encode the objects; show and write the omage."""
        active: Any = context.object
        chosen = selected_solids(context)
        name = active.name if active in chosen else chosen[0].name
        try:
            omage, report = encode_objects(chosen, settings_from_properties(OmageSettings, self))
            images = show_omage(omage, name, origin=Origin(report.centre, report.scale))
            ensure_image_editor(images.get("albedo", images["position"]))
            if self.filepath:
                write_omage_files(omage, output_path(self.filepath), pictures=self.pictures)
        except XRayError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self.report({"WARNING" if report.unwrapped else "INFO"}, f"{name}: {report}")
        return {"FINISHED"}


class XRAY_OT_omage_to_object(bpy.types.Operator):
    """Make a mesh with its material of an omage: of the one in the Image Editor, or of a file"""

    bl_idname = "xray.omage_to_object"
    bl_label = "Omage to Object"
    bl_options = {"REGISTER", "UNDO"}

    source: bpy.props.EnumProperty(
        name="Source",
        description="Where the omage comes from",
        items=[
            (
                "editor",
                "Image Editor",
                "The omage as it stands in the Image Editor, painted or not",
            ),
            ("file", "File", "An .npz or .npy file, or geometry.png of a folder of pictures"),
        ],
    )
    filepath: bpy.props.StringProperty(
        name="File", subtype="FILE_PATH", options=PATH_OPTIONS | {"SKIP_SAVE"}
    )
    filter_glob: bpy.props.StringProperty(default="*.npz;*.npy;*.png", options={"HIDDEN"})
    resolution: bpy.props.IntProperty(
        name="Resolution",
        description="Pixels along a side that the mesh is made of; 0 for the omage's own",
        default=0,
        min=0,
        max=8192,
        subtype="PIXEL",
    )
    stitch: bpy.props.BoolProperty(name="Stitch", description="Close the seams between the patches")

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Require Object Mode."""
        if context.mode != "OBJECT":
            cls.poll_message_set("Go to Object Mode first")
            return False
        return True

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> OperatorResult:
        """Ask for the file if one is needed."""
        if self.source == "file" and not self.filepath:
            context.window_manager.fileselect_add(self)
            return {"RUNNING_MODAL"}
        return self.execute(context)

    def execute(self, context: bpy.types.Context) -> OperatorResult:
        """Decode the omage; the object gets a free place, and the size that it was encoded from."""
        boxes, origin = visible_boxes(), None
        try:
            if self.source == "file" or self.filepath:
                path = absolute_path(self.filepath)
                omage = load_omage(path)
                name = (path.parent if path.suffix == ".png" else path).stem
            else:
                name = shown_name(context)
                omage, origin = read_shown(name), shown_origin(name)
            if self.resolution:
                omage = omage.resized(self.resolution)
            obj: Any = add_omage(omage, name, active_collection(), stitch=self.stitch)
        except XRayError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        obj[NAME_KEY] = name
        start = np.array(context.scene.cursor.location if origin is None else origin.centre)
        if origin is not None:
            obj.data.transform(Matrix.Diagonal((*[1 / origin.scale] * 3, 1.0)))
        places = vertex_positions(obj.data)
        obj.location = free_place(places.min(axis=0), places.max(axis=0), start, boxes)
        make_active(obj)
        for note in omage.notes:
            self.report({"WARNING"}, note)
        self.report({"INFO"}, f"{name}: {len(obj.data.polygons):,} faces")
        return {"FINISHED"}


class XRAY_OT_show_omage(bpy.types.Operator):
    """Show another view of the omage in the Image Editor"""

    bl_idname = "xray.show_omage"
    bl_label = "Show Omage"
    bl_options = {"REGISTER"}

    view: bpy.props.EnumProperty(
        name="View",
        description="What the Image Editor shows of the omage",
        items=[(name, name.title(), meaning) for name, meaning in MEANINGS.items()],
        default="albedo",
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Require an omage."""
        if not shown_name(context):
            cls.poll_message_set("There is no omage yet. Make one with Object to Omage")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> OperatorResult:
        """Show the view."""
        try:
            show_view(shown_name(context), self.view)
        except XRayError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


def load_omage(path: Path) -> Omage:
    """The omage in a file, or in the folder of the picture `path`."""
    return Omage.load(path.parent if path.suffix == ".png" else path)


def write_omage_files(omage: Omage, path: Path, *, pictures: bool) -> None:
    """Write `omage` to `path`, an .npz; `pictures` adds a folder of the same name beside it.

    Raises XRayError `unknown_format`, `cannot_write`.
    """
    if path.suffix.lower() != ".npz":
        raise XRayError(
            "unknown_format", f"{path} does not end in .npz.", "Name an .npz file for the omage."
        )
    try:
        omage.save(path)
        if pictures:
            write_pictures(path.with_suffix(""), omage)
    except OSError as error:
        raise XRayError(
            "cannot_write",
            f"{path} cannot be written ({error.strerror or error}).",
            "Choose a folder that exists or can be made, with space left.",
        ) from error


@with_settings(OmagesSettings)
class XRAY_OT_omage_material(TaskOperator):
    """Make a material for the active mesh with the Omages network, on a UV map of its own"""

    bl_idname = "xray.omage_material"
    bl_label = "Material from Omages"
    # Without REGISTER, because the redo panel would run the model again at every change.
    bl_options = {"UNDO"}

    category: bpy.props.StringProperty(
        name="Category", description="What the mesh is", options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Require a runtime and an active mesh."""
        if context.mode != "OBJECT" or context.object is None or context.object.type != "MESH":
            cls.poll_message_set("Select a mesh in Object Mode")
            return False
        return service.poll_available(cls)

    @classmethod
    def circumstances(cls, context: bpy.types.Context) -> Any:
        """The active object, the settings of Omages, and what is installed."""
        name = context.object.name if context.object else ""
        return name, panel_values(context.scene, SYSTEM), service.is_available()

    def work(self, context: bpy.types.Context) -> jobs.Steps:
        """Encode the mesh now, then run the network and give the mesh its material."""
        obj: Any = context.object
        return material_steps(obj, self.category, settings_from_properties(OmagesSettings, self))

    def summary(self, result: Any) -> tuple[str, str]:
        """The object with the new material."""
        return "INFO", f"{result.name} has the material {result.data.materials[0].name}"


def set_from_panel(operator: Any, panel: Any) -> None:
    """Copy the settings of Material Only, and the preferences, to `XRAY_OT_omage_material`.

    panel : the settings in the Generate panel.
    """
    own, machine = system_settings(panel, SYSTEM), preferences()
    copy_settings(SYSTEM.settings.own_fields(), own, operator)
    operator.checkpoint, operator.category = own.checkpoint, own.category
    operator.seed = panel.seed
    if machine is not None:
        operator.device = machine.device


CLASSES: tuple[type[Any], ...] = (
    XRAY_OT_object_to_omage,
    XRAY_OT_omage_material,
    XRAY_OT_omage_to_object,
    XRAY_OT_show_omage,
)
