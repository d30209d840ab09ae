"""Finishes a generated mesh again, without the model, and saves such settings as presets."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import bpy
from bl_operators.presets import AddPresetBase

from ...xray_addon.errors import XRayError
from ...xray_addon.settings.result import ResultSettings
from ..layers.layers import frame_of, set_frame
from ..properties import settings_from_properties, with_settings
from ..results import replace_steps
from ..tasks.watching import TaskOperator
from .ops import is_generated

if TYPE_CHECKING:
    from ..tasks import jobs

PRESETS = "xray/result"  # in Blender's folder of presets


@with_settings(ResultSettings)
class XRAY_OT_apply_result(TaskOperator):
    """Finish the active generated mesh again: faces, texture, size, symmetry. No model runs"""

    bl_idname = "xray.apply_result"
    bl_label = "Apply Result"
    # Without REGISTER, because the redo panel would run it again at every change.
    bl_options = {"UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Require a generated mesh in Object Mode."""
        if context.mode != "OBJECT":
            cls.poll_message_set("Go to Object Mode first")
            return False
        return is_generated(cls, context)

    @classmethod
    def circumstances(cls, context: bpy.types.Context) -> Any:
        """The active object and the panel's settings."""
        panel: Any = context.scene.xray.generate
        settings = [getattr(panel, item.name) for item in fields(ResultSettings)]
        return context.object.name if context.object else "", *settings

    def work(self, context: bpy.types.Context) -> jobs.Steps:
        """Finish the mesh of the active object."""
        return apply_steps(context.object, settings_from_properties(ResultSettings, self))

    def summary(self, result: Any) -> tuple[str, str]:
        """The mesh's name and its new number of faces."""
        return "INFO", f"{result.name}: {len(result.data.polygons):,} faces"


def apply_steps(obj: Any, settings: ResultSettings) -> jobs.Steps:
    """Finish the mesh of `obj`, a generated object, according to `settings`; returns `obj`.

    This works on a copy, so that modifiers, other users of the mesh and `obj` itself do not change
    before the new mesh is complete. Layers are scaled with the mesh.

    Raises XRayError `object_gone` if the object was removed meanwhile, and those of `finish_steps`.
    """
    name = obj.name
    # The height applies to the object, which may be scaled.
    height = settings.height / (abs(obj.scale.z) or 1.0)
    obj, factor = yield from replace_steps(
        obj.data.copy(), replace(settings, height=height), lambda: _mesh_object(name)
    )
    scale, shift = frame_of(obj)
    set_frame(obj, scale * factor, shift * factor)
    obj["xray_result"] = settings.to_dict()
    return obj


def _mesh_object(name: str) -> Any:
    objects: Any = bpy.data.objects
    obj = objects.get(name)
    if obj is None or obj.type != "MESH":
        raise XRayError("object_gone", f"{name} was removed.", "Select another mesh.")
    return obj


class XRAY_OT_result_preset_add(AddPresetBase, bpy.types.Operator):  # type: ignore[misc]
    """Save the settings of the result as a preset, or remove a preset"""

    bl_idname = "xray.result_preset_add"
    bl_label = "Add Result Preset"
    preset_menu = "XRAY_PT_result_presets"
    preset_defines = ("generate = bpy.context.scene.xray.generate",)
    preset_values = tuple(f"generate.{item.name}" for item in fields(ResultSettings))
    preset_subdir = PRESETS


CLASSES: tuple[type[Any], ...] = (XRAY_OT_apply_result, XRAY_OT_result_preset_add)
