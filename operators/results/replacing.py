"""Replaces the mesh of an object that people may be working on meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np

from ...xray_addon.errors import XRayError
from ..convert.staging import TemporaryData
from .finishing import mark_as_asset, remove_unused
from .second_blender import finish_steps, in_object_mode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...xray_addon.settings.result import ResultSettings
    from ..tasks import jobs

# How often a half-made mesh is made again because undo or another file removed it.
ATTEMPTS = 5


def replace_steps(make: Callable[[], jobs.Steps], owner: Callable[[], Any]) -> jobs.Steps:
    """Make and finish a mesh, then give it to the object `owner()` in place of its own.

    make : steps that give a new mesh and the settings to finish it with. If undo removes that mesh,
    it is made again. Until it is finished and the object in Object Mode, the object does not
    change. If the work ends early, the mesh is removed. The result is the object and the scale
    factor.

    Raises the errors of `make`, `owner` and `finish_steps`, and `object_gone` if the new mesh was
    removed again and again.
    """
    for _ in range(ATTEMPTS):
        with suppress(ReferenceError):
            mesh, settings = yield from make()
            try:
                replaced = yield from _replace(mesh, settings, owner)
                return replaced
            except XRayError as error:
                if error.code != "object_gone":
                    raise
    raise XRayError(
        "object_gone", "The new mesh was removed again and again.", "Try again without undoing."
    )


def _replace(mesh: Any, settings: ResultSettings, owner: Callable[[], Any]) -> jobs.Steps:
    with TemporaryData() as owned, ExitStack() as unfinished:
        made: Any = owned.own(bpy.data.objects.new(mesh.name, mesh))
        unfinished.callback(_remove_mesh, made)
        factor = yield from finish_steps(made, settings)
        obj = yield from in_object_mode(owner)
        unfinished.pop_all()
        before, obj.data = obj.data, made.data
        if settings.asset:
            mark_as_asset(obj, _preview_of(made))
    if not before.users:
        title, materials = before.name, list(before.materials)
        bpy.data.meshes.remove(before)
        obj.data.name = title
        remove_unused(materials, obj.data.materials)
    return obj, factor


def _remove_mesh(obj: Any) -> None:
    with suppress(ReferenceError):  # removed by undo or by opening another file
        bpy.data.meshes.remove(obj.data)


def _preview_of(obj: Any) -> NDArray[np.float32]:
    """The preview of an asset, (H, W, 4)."""
    preview = obj.preview_ensure()
    width, height = preview.image_size
    # Assigning one preview's pixels to the other takes Blender more than a minute.
    pixels = np.empty(width * height * 4, dtype=np.float32)
    preview.image_pixels_float.foreach_get(pixels)
    return pixels.reshape(height, width, 4)
