"""X-Ray files in the scene: as a mesh, as points, or as one object a layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from ..xray_addon.camera import Camera
from ..xray_addon.errors import XRayError
from ..xray_addon.reconstruction import reconstruct
from ..xray_addon.transforms import read_transforms
from ..xray_addon.views import PUBLISHED_DISTANCE
from ..xray_addon.xray import XRay
from .convert import add_object, mesh_from_points, mesh_from_surface
from .convert.display import show_as_points

FORMS = ("mesh", "points", "layers")


@dataclass(frozen=True)
class Placed:
    """An X-Ray and the camera that saw it; `known` says whether a transforms.json told."""

    xray: XRay
    camera: Camera
    known: bool


def load_placed(path: str | Path) -> Placed:
    """Read an X-Ray and its camera: `images/<uid>/transforms.json` beside `xrays/<uid>/`.

    A transforms.json in the file's own folder counts too. Without one the camera stands on the
    -y side with the published lens.

    Raises XRayError for files that are not there or not what they should be.
    """
    path = Path(path)
    xray = XRay.load(path)
    if not len(xray.index):
        raise XRayError("empty_xray", f"{path.name} has no hits.", "Choose another file.")
    _, height, width = xray.shape
    beside = (
        path.parent.parent.parent / "images" / path.parent.name / "transforms.json",
        path.parent / "transforms.json",
    )
    for candidate in beside:
        if candidate.is_file():
            cameras = read_transforms(candidate, width, height)
            if path.stem in cameras:
                return Placed(xray, cameras[path.stem], known=True)
    camera = Camera.look_at((0.0, -PUBLISHED_DISTANCE, 0.0), width=width, height=height)
    return Placed(xray, camera, known=False)


def import_xray(path: str | Path, form: str = "mesh") -> list[bpy.types.Object]:
    """Add the X-Ray at `path` to the current scene where it was captured.

    form : "mesh" reconstructs it, "points" adds its hits, "layers" its hits with an object for
        each layer, in a collection.

    Raises XRayError; ValueError for another form.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {FORMS}, got {form!r}")
    path = Path(path)
    placed = load_placed(path)
    name = path.stem if path.parent.name in ("", ".") else f"{path.parent.name} {path.stem}"
    if form == "layers":
        objects = add_layers(placed.xray, placed.camera, name)
    else:
        collection = bpy.context.collection or bpy.context.scene.collection
        if form == "mesh":
            mesh = mesh_from_surface(reconstruct(placed.xray, placed.camera), name)
        else:
            mesh = mesh_from_points(placed.xray.points(placed.camera), name)
        obj = add_object(mesh, collection)
        if form == "points":
            show_as_points(obj, _spacing(placed.xray, placed.camera))
        objects = [obj]
    for item in objects:
        item["xray_file"] = str(path)
        if form != "layers":
            item["xray_hits"] = placed.xray.hits_per_layer.tolist()
    return objects


def add_layers(
    xray: XRay, camera: Camera, name: str, *, hidden: bool = False
) -> list[bpy.types.Object]:
    """An object of points for each layer that has hits, in a new collection."""
    parent = bpy.context.collection or bpy.context.scene.collection
    collection = bpy.data.collections.new(f"{name} Layers")
    parent.children.link(collection)
    points = xray.points(camera)
    spacing = _spacing(xray, camera)
    stops = np.cumsum(xray.hits_per_layer)
    objects = []
    for layer, (stop, count) in enumerate(zip(stops, xray.hits_per_layer, strict=True)):
        if not count:
            continue
        part = slice(int(stop - count), int(stop))
        one = type(points)(points.positions[part], points.normals[part], points.colors[part])
        obj: Any = add_object(mesh_from_points(one, f"{name} Layer {layer + 1:02d}"), collection)
        show_as_points(obj, spacing)
        obj["xray_layer"], obj["xray_count"] = layer, int(count)
        obj.hide_viewport = obj.hide_render = hidden
        objects.append(obj)
    return objects


def layer_objects(obj: Any) -> list[Any]:
    """The layer objects that belong with `obj`, front to back: its own collection's, or those
    of the collection that was made for it."""
    if obj is None:
        return []
    if "xray_layer" in obj:
        collections = list(obj.users_collection)
    else:
        named = bpy.data.collections.get(f"{obj.name} Layers")
        collections = [named] if named else []
    layers = [item for c in collections for item in c.objects if "xray_layer" in item]
    return sorted(layers, key=lambda item: int(item["xray_layer"]))


def _spacing(xray: XRay, camera: Camera) -> float:
    """How far apart two neighbouring hits are, in the middle of the object."""
    return float(np.median(xray.hit_depth)) / camera.focal
