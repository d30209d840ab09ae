"""Finishes a generated mesh again, without the model, and saves such settings as presets."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np
from bl_operators.presets import AddPresetBase
from mathutils import Matrix

from ...xray_addon.errors import XRayError
from ...xray_addon.settings.result import ResultSettings
from ..layers.layers import frame_of, set_frame
from ..properties import settings_from_properties, with_settings
from ..results import replace_steps, vertex_positions
from ..results.second_blender import FINISHING
from ..tasks.lasting import Lasting
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
        if not is_generated(cls, context):
            return False
        if context.object.library is not None:
            cls.poll_message_set("It is linked from another file. Make it local first")
            return False
        return True

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
    before the new mesh is complete. Layers are scaled with the mesh. The height is that in the
    scene, whatever the object's scale, rotation and parents.

    Raises XRayError `object_gone` if the object was removed meanwhile, and those of `finish_steps`.
    """
    kept = Lasting(obj)

    def owner() -> Any:
        found = kept.find()
        if found is None or found.type != "MESH":
            raise XRayError("object_gone", f"{kept.name} was removed.", "Select another mesh.")
        return found

    frame = Matrix()

    def make() -> jobs.Steps:
        nonlocal frame
        yield FINISHING
        found = owner()
        frame = frame_of(found)
        height = settings.height * _local_share(found)
        return found.data.copy(), replace(settings, height=height)

    def steps() -> jobs.Steps:
        found, factor = yield from replace_steps(make, owner)
        set_frame(found, Matrix.Scale(factor, 4) @ frame)
        found["xray_result"] = settings.to_dict()
        return found

    return steps()


def _local_share(obj: Any) -> float:
    """The height of the mesh of `obj` in its own space, as a share of that in the scene."""
    positions = vertex_positions(obj.data)
    across = np.array(obj.matrix_world)[2, :3]
    if not len(positions) or not (height := np.ptp(positions @ across)):
        return 1.0
    return float(np.ptp(positions[:, 2]) / height)


class XRAY_OT_result_preset_add(AddPresetBase, bpy.types.Operator):  # type: ignore[misc]
    """Save the settings of the result as a preset, or remove a preset"""

    bl_idname = "xray.result_preset_add"
    bl_label = "Add Result Preset"
    preset_menu = "XRAY_PT_result_presets"
    preset_defines = ("generate = bpy.context.scene.xray.generate",)
    preset_values = tuple(f"generate.{item.name}" for item in fields(ResultSettings))
    preset_subdir = PRESETS


CLASSES: tuple[type[Any], ...] = (XRAY_OT_apply_result, XRAY_OT_result_preset_add)
