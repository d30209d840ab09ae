"""Operators on the layers of an X-Ray: peel, explode, rebuild the mesh, show as a picture."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import bpy

from ...xray_addon.errors import XRayError
from ...xray_addon.pictures.contact_sheet import MEANINGS, layer_grid
from ...xray_addon.settings.rebuild import RebuildSettings
from ..convert.images import ensure_image_editor, show
from ..convert.meshes import make_active
from ..properties import (
    absolute_path,
    copy_settings,
    settings_from_properties,
    with_settings,
)
from ..tasks import jobs, person
from ..tasks.watching import OperatorResult, TaskOperator
from .layers import layer_objects, layers_of, load_placed, read_layers, rebuild_steps

if TYPE_CHECKING:
    from ...xray_addon.xray import XRay

IMAGE_NAME = "X-Ray Layers"
NO_LAYERS = "The active object has no layers"
REMEDY = "Import an X-Ray as layers, or generate with Keep Layers."


class LayersOperator(bpy.types.Operator):
    """An operator on the active object's layers. The object may also be one of them."""

    bl_idname = "xray.layers"
    bl_label = "X-Ray Layers"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Require layers."""
        return _has_layers(cls, context)


class XRAY_OT_show_layers(LayersOperator):
    """Peel the object layer by layer, or move the layers apart along the view"""

    bl_idname = "xray.show_layers"
    bl_label = "Peel X-Ray Layers"
    bl_options = {"REGISTER", "UNDO"}

    peel: bpy.props.IntProperty(
        name="Peel", description="Number of nearest layers to hide", default=1, min=0
    )
    explode: bpy.props.FloatProperty(
        name="Explode",
        description="Distance between two layers, in sizes of the object",
        soft_min=0.0,
        soft_max=2.0,
        subtype="FACTOR",
    )

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> OperatorResult:
        """Peel one layer more than now."""
        collection = layers_of(context.object)
        if not self.properties.is_property_set("peel"):
            self.peel = (collection.xray.peel + 1) % max(1, len(layer_objects(collection)))
        if not self.properties.is_property_set("explode"):
            self.explode = collection.xray.explode
        return self.execute(context)

    def execute(self, context: bpy.types.Context) -> OperatorResult:
        """Set the values of the panel's sliders."""
        layers = layers_of(context.object)
        layers.xray.visible = True
        layers.xray.peel, layers.xray.explode = self.peel, self.explode
        return {"FINISHED"}


@with_settings(RebuildSettings)
class XRAY_OT_rebuild(TaskOperator):
    """Reconstruct the mesh from the remaining hits of the layers.

    To remove hits, delete vertices in Edit Mode or paint the vertex group "Delete" in Weight Paint
    """

    bl_idname = "xray.rebuild"
    bl_label = "Rebuild Mesh from Layers"
    bl_options = {"UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Require layers."""
        return _has_layers(cls, context)

    def work(self, context: bpy.types.Context) -> jobs.Steps:
        """Rebuild the mesh."""
        settings = settings_from_properties(RebuildSettings, self)
        return _shown(rebuild_steps(layers_of(context.object), settings))

    def summary(self, result: Any) -> tuple[str, str]:
        """The mesh's name and number of faces."""
        return "INFO", f"Rebuilt {result.name}: {len(result.data.polygons):,} faces"


def set_from_layers(operator: Any, context: bpy.types.Context) -> None:
    """Copy the settings of the active object's layers to `XRAY_OT_rebuild`."""
    collection = layers_of(context.object)
    if collection is not None:
        copy_settings(fields(RebuildSettings), collection.xray, operator)


def _has_layers(cls: Any, context: bpy.types.Context) -> bool:
    if layers_of(context.object) is None:
        cls.poll_message_set(f"{NO_LAYERS}. {REMEDY.rstrip('.')}")
        return False
    return True


def _shown(steps: jobs.Steps) -> jobs.Steps:
    obj = yield from steps
    if person.is_idle():
        make_active(obj)
    return obj


class XRAY_OT_show_picture(bpy.types.Operator):
    """Show one channel of all layers in the Image Editor, side by side"""

    bl_idname = "xray.show_picture"
    bl_label = "Show X-Ray Layers as Picture"
    bl_options = {"REGISTER", "UNDO"}

    channel: bpy.props.EnumProperty(
        name="Channel",
        description="What the picture shows of each layer",
        items=[(name, name.title(), meaning) for name, meaning in MEANINGS.items()],
        default="depth",
    )
    filepath: bpy.props.StringProperty(
        name="X-Ray File",
        description="An X-Ray file; empty for the active object's file",
        subtype="FILE_PATH",
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Always possible, because a file can be given."""
        return context.scene is not None

    def execute(self, context: bpy.types.Context) -> OperatorResult:
        """Show the picture."""
        try:
            picture = layer_grid(self._xray(context.object), self.channel)
        except XRayError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        ensure_image_editor(show(picture, IMAGE_NAME))
        return {"FINISHED"}

    def _xray(self, obj: Any) -> XRay:
        if self.filepath:
            return load_placed(absolute_path(self.filepath)).xray
        layers = layers_of(obj)
        if layers is not None:
            return read_layers(layers).xray
        if obj is not None and "xray_file" in obj:
            return load_placed(obj["xray_file"]).xray
        raise XRayError("no_layers", f"{NO_LAYERS}.", REMEDY)


CLASSES: tuple[type[Any], ...] = (XRAY_OT_show_layers, XRAY_OT_rebuild, XRAY_OT_show_picture)
