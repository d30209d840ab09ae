"""Finds a place for a new mesh: on the floor, beside existing objects, in view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix
from numpy.typing import NDArray

GAP = 0.1  # distance to the next object, in widths of the new one
# Objects this many times as wide and deep as the new one are ground, or a room around it.
SURROUNDINGS = 8.0
SLIVER = 1e-4  # in sizes of the new object: objects with less overlap only touch
DISTANCE = 2.0  # of the view, in diagonals of the shown objects
SOLID = frozenset({"MESH", "CURVE", "CURVES", "SURFACE", "META", "FONT", "VOLUME", "POINTCLOUD"})


@dataclass
class Spot:
    """The place for the meshes of one press of a button.

    start : the point on the floor from which the first free place to the right (+x) is taken;
        None for the 3D cursor when the first mesh arrives.
    beside : name of an object to show together with the first mesh; "" for none.
    framed : whether the view has already framed a mesh, which happens once.
    """

    start: Sequence[float] | None = None
    beside: str = ""
    framed: bool = False

    def place(self, low: NDArray[Any], high: NDArray[Any]) -> NDArray[np.float64]:
        """The location of a mesh with the bounds `low` and `high`, both (3,), around its origin."""
        if self.start is None:
            self.start = bpy.context.scene.cursor.location.to_tuple()
        return free_place(low, high, np.array(self.start), visible_boxes())

    def frame(self, obj: Any) -> None:
        """Show `obj` in the largest 3D view, unless a mesh was shown before."""
        if not self.framed:
            other = bpy.context.view_layer.objects.get(self.beside)
            self.framed = _show([obj, other] if other is not None else [obj])


def free_place(
    low: NDArray[Any], high: NDArray[Any], start: NDArray[Any], boxes: NDArray[Any]
) -> NDArray[np.float64]:
    """The first place at `start` or to its right (+x) where a mesh overlaps none of `boxes`.

    low, high : (3,) bounds of the mesh around its origin. start : (3,) for the origin.
    boxes : (N, 2, 3) lowest and highest corners. Those much larger than the mesh are ignored.
    """
    size = high - low
    largest = float(size.max())
    footprint = (boxes[:, 1] - boxes[:, 0])[:, :2].min(axis=1)
    boxes = boxes[footprint < SURROUNDINGS * largest] if largest else boxes
    gap = GAP * float(size[0])
    margin = np.array([-gap * (1 - SLIVER), SLIVER * largest, SLIVER * largest])
    place = start.astype(np.float64)
    while True:
        near, far = place + low + margin, place + high - margin
        overlaps = ((boxes[:, 0] < far) & (boxes[:, 1] > near)).all(axis=1)
        if not overlaps.any():
            return place
        place[0] = boxes[overlaps, 1, 0].max() + gap - low[0]


def visible_boxes() -> NDArray[np.float64]:
    """(N, 2, 3) world bounding boxes of all visible objects with a surface, instances included."""
    layer: Any = bpy.context.view_layer
    layer.update()
    objects = layer.objects
    bounds, matrices = np.empty(24 * len(objects)), np.empty(16 * len(objects))
    objects.foreach_get("bound_box", bounds)
    objects.foreach_get("matrix_world", matrices)
    shown = [obj.visible_get() and obj.type in SOLID for obj in objects]
    parts = [_boxes(bounds.reshape(-1, 8, 3)[shown], matrices.reshape(-1, 4, 4)[shown])]
    for obj in objects:
        if obj.instance_collection is None or not obj.visible_get():
            continue
        children = [c for c in obj.instance_collection.all_objects if c.type in SOLID]
        inner = np.array([child.bound_box for child in children]).reshape(-1, 8, 3)
        origin = Matrix.Translation(-obj.instance_collection.instance_offset)
        placed = [(obj.matrix_world @ origin @ c.matrix_world).transposed() for c in children]
        parts.append(_boxes(inner, np.array(placed).reshape(-1, 4, 4)))
    return np.concatenate(parts)


def _boxes(corners: NDArray[Any], matrices: NDArray[Any]) -> NDArray[np.float64]:
    """Boxes of corners (N, 8, 3) moved by transposed matrices (N, 4, 4), without empty ones."""
    filled = np.ptp(corners, axis=1).any(axis=1)
    corners, matrices = corners[filled], matrices[filled]
    placed = corners @ matrices[:, :3, :3] + matrices[:, 3:, :3]
    return np.stack([placed.min(axis=1), placed.max(axis=1)], axis=1)


def _show(objects: Sequence[Any]) -> bool:
    """Turn the largest 3D view to `objects`; False if there is no such view."""
    views = [
        (area.width * area.height, area.spaces.active)
        for window in bpy.context.window_manager.windows
        if window.view_layer == bpy.context.view_layer
        for area in window.screen.areas
        if area.type == "VIEW_3D"
    ]
    if not views:
        return False
    _, space = max(views, key=lambda view: view[0])
    view = space.region_3d
    if space.local_view is not None or view.view_perspective == "CAMERA":
        return False
    boxes = np.concatenate([_boxes(*_bounds(obj)) for obj in objects])
    low, high = boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)
    view.view_location = ((low + high) / 2).tolist()
    view.view_distance = DISTANCE * float(np.linalg.norm(high - low))
    return True


def _bounds(obj: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """The arguments of `_boxes` for one object."""
    return np.array(obj.bound_box)[None], np.array(obj.matrix_world.transposed())[None]
