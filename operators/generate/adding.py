"""Adds a system's result to the scene: the mesh and, if wanted, its view, layers and pictures.

Array work is done in a thread, the rest in short steps. Nothing is linked to the scene before all
of it is ready. Mode, selection and view change only if the user is idle.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np
from mathutils import Matrix, Vector

from ...xray_addon.errors import XRayError
from ...xray_addon.files.png import encode_png
from ...xray_addon.progress import Cancelled, Progress
from ...xray_addon.settings.result import ResultSettings
from ..convert import MeshArrays, active_collection, add_camera, mesh_steps
from ..convert.meshes import image_from_png, make_active
from ..convert.staging import TemporaryData
from ..layers.layers import (
    LayerArrays,
    add_layers,
    frame_of,
    layer_arrays,
    layer_mesh,
    set_frame,
)
from ..results import ATTEMPTS, finish_steps, vertex_positions
from ..tasks import jobs, person

if TYPE_CHECKING:
    from ...xray_addon.camera import Camera
    from ...xray_addon.generated import Generated
    from ..tasks.lasting import Lasting
    from .placing import Spot

ADDING = Progress("add", message="Adding the mesh")

Layers = list[tuple[LayerArrays, bpy.types.Mesh]]


def add_steps(
    generated: Generated,
    name: str,
    spot: Spot,
    result: ResultSettings,
    *,
    keep_camera: bool,
    keep_layers: bool,
) -> jobs.Steps:
    """Add a result to the current scene, upright, with its origin at its base.

    The steps' result is the new object, and the XRayError if `result` could not be applied, else
    None. The height is applied in any case.
    """
    arrays = yield from jobs.in_thread(lambda: MeshArrays.of(generated.surface), ADDING)
    pictures = yield from _encode_pictures(generated.pictures)
    keeps = keep_layers and generated.xray is not None and len(generated.xray.index) > 0
    failure: XRayError | None = None
    for _ in range(ATTEMPTS):
        with TemporaryData() as half_made:
            try:
                layers = (yield from _layer_steps(generated, name, half_made)) if keeps else []
                obj, factor = yield from _object_steps(arrays, name, result, half_made)
                _raise_if_gone(layers)
            except Cancelled:
                raise
            except ReferenceError:
                continue
            except XRayError as error:
                if error.code != "object_gone":
                    failure, result = error, ResultSettings(height=result.height)
                continue
            half_made.keep()
            break
    else:
        raise XRayError(
            "object_gone", "The new mesh was removed again and again.", "Generate it again."
        )
    collection = active_collection()
    _stand(obj, factor, spot)  # before linking it, so that it is not an obstacle to itself
    collection.objects.link(obj)
    if keep_camera:
        add_view(obj, generated.camera, collection)
    _add_pictures(obj, pictures, keep=keep_layers)
    if generated.xray is not None:
        obj["xray_hits"] = generated.xray.hits_per_layer.tolist()
        if layers:
            add_layers(generated.xray, generated.camera, obj.name, layers, parent=obj)
    if person.is_idle():
        make_active(obj)
        spot.frame(obj)
    return obj, failure


def keep_steps(generated: Generated, kept: Lasting, *, keep_camera: bool) -> jobs.Steps:
    """Add the layers and pictures of `generated` to the object `kept`, which was made with the same
    settings.

    The result is the object. Raises XRayError `object_gone` if it was removed meanwhile.
    """
    pictures = yield from _encode_pictures(generated.pictures)
    has_layers = generated.xray is not None and len(generated.xray.index) > 0
    layers: Layers = []
    for _ in range(ATTEMPTS):
        with TemporaryData() as half_made, suppress(ReferenceError):
            if has_layers:
                layers = yield from _layer_steps(generated, kept.name, half_made)
            _raise_if_gone(layers)
            if (found := kept.find()) is None:
                raise XRayError("object_gone", f"{kept.name} was removed.", "Select another mesh.")
            half_made.keep()
            break
    else:
        raise XRayError(
            "object_gone", "The new layers were removed again and again.", "Try without undoing."
        )
    if generated.xray is not None and layers:
        add_layers(generated.xray, generated.camera, found.name, layers, parent=found)
    _add_pictures(found, pictures, keep=True)
    if keep_camera:
        add_view(found, generated.camera, found.users_collection[0])
    return found


def add_view(obj: Any, camera: Camera, collection: bpy.types.Collection) -> None:
    """Add the image's camera for `obj`."""
    seen = add_camera(camera, f"{obj.name} View", collection)
    place, turn, _ = (obj.matrix_world @ frame_of(obj) @ seen.matrix_world).decompose()
    seen.matrix_world = Matrix.LocRotScale(place, turn, None)


def _object_steps(
    arrays: MeshArrays, name: str, result: ResultSettings, half_made: TemporaryData
) -> jobs.Steps:
    """A finished object, not yet in a scene, and its scale factor."""
    mesh = half_made.own((yield from jobs.reporting(mesh_steps(arrays, name), ADDING)))
    obj = half_made.own(bpy.data.objects.new(name, mesh))
    factor = yield from finish_steps(obj, result)
    half_made.own(obj.data)
    return obj, factor


def _layer_steps(generated: Generated, name: str, half_made: TemporaryData) -> jobs.Steps:
    """The layers of `generated`, with their meshes."""
    xray = generated.xray
    made: Layers = []
    assert xray is not None
    parts = yield from jobs.in_thread(lambda: layer_arrays(xray, generated.camera), ADDING)
    for part in parts:
        made.append((part, half_made.own(layer_mesh(part, name))))
        yield ADDING
    return made


def _raise_if_gone(layers: Layers) -> None:
    """Raise ReferenceError if undo or another file has removed a mesh of `layers`."""
    for _, mesh in layers:
        mesh.name  # noqa: B018


def _encode_pictures(pictures: Mapping[str, Any]) -> jobs.Steps:
    def encode() -> dict[str, bytes]:
        return {title: encode_png(picture) for title, picture in pictures.items()}

    return jobs.in_thread(encode, ADDING)


def _add_pictures(obj: Any, pictures: Mapping[str, bytes], *, keep: bool) -> None:
    for title, png in pictures.items():
        image_from_png(f"{obj.name} {title}", png).use_fake_user = keep


def _stand(obj: Any, factor: float, spot: Spot) -> None:
    """Move the origin to the middle of the base, and the object to its place."""
    positions = vertex_positions(obj.data)
    low = high = np.zeros(3)
    if len(positions):
        low, high = positions.min(axis=0), positions.max(axis=0)
    base = np.array([*(low + high)[:2] / 2, low[2]], dtype=np.float64)
    down = Matrix.Translation((-base).tolist())
    obj.data.transform(down)
    set_frame(obj, down @ Matrix.Scale(factor, 4))
    obj.matrix_world = Matrix.Translation(Vector(spot.place(low - base, high - base).tolist()))
