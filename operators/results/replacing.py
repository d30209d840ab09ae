"""Replaces the mesh of an object that people may be working on meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np

from ..convert.staging import TemporaryData
from .finishing import mark_as_asset, remove_unused
from .second_blender import finish_steps, in_object_mode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...xray_addon.settings.result import ResultSettings
    from ..tasks import jobs


def replace_steps(mesh: Any, settings: ResultSettings, owner: Callable[[], Any]) -> jobs.Steps:
    """Finish the new `mesh`, then give it to the object `owner()` in place of its own.

    Until the mesh is finished and the object in Object Mode, the object does not change. If the
    work ends early, `mesh` is removed. The result is the object and the scale factor.

    Raises the errors of `owner` and `finish_steps`.
    """
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
