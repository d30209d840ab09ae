"""Removes coincident faces, within a mesh or between objects in the same place.

Cycles renders them black: a ray that bounces off one starts on the other, so light is trapped
between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bmesh
import numpy as np
from numpy.typing import NDArray

from ..convert.staging import Stage

# Distance within which faces coincide, relative to the scene's size: far less than a pixel, and far
# more than the rounding of one position under two transforms in single precision.
TOLERANCE = 1e-5
# Gap made between objects with the same box but different faces, e.g. if only one is triangulated.
GAP = 1e-4
FACES_AT_ONCE = 1 << 20
# Large odd numbers, for hashing.
_ODD = np.array(
    [0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93], np.uint64
)


def remove_doubles(stage: Stage) -> None:
    """Remove all but the first of coincident faces in `stage`, in any order of corners."""
    meshes = {obj.data: obj for obj in reversed(stage.objects)}
    place = _Place(stage.objects)
    for mesh, obj in meshes.items():
        _delete(mesh, _doubled(place.faces(obj)))
    together = place.in_one_place()
    doubled = _doubled(np.concatenate([place.faces(obj) for obj in together] or [_NO_FACES]))
    start = 0
    for obj in together:
        end = start + len(obj.data.polygons)
        _remove(stage, obj, doubled[start:end])
        start = end
    place.keep_apart([obj for obj in together if obj in stage.objects])


_NO_FACES = np.empty((0, 3), np.uint64)


class _Place:
    """Objects, scaled so that the longest side of the box around all of them is 1."""

    def __init__(self, objects: list[Any]) -> None:
        self._objects = list(objects)
        boxes = np.array([_box(obj) for obj in objects])
        self._middle = (boxes[:, 0].min(axis=0) + boxes[:, 1].max(axis=0)) / 2
        self._size = float((boxes[:, 1].max(axis=0) - boxes[:, 0].min(axis=0)).max()) or 1.0
        self._boxes = (boxes - self._middle) / self._size
        rounding = float(np.spacing(np.float32(np.abs(boxes).max()))) / self._size
        self._tolerance = max(TOLERANCE, 32 * rounding)

    def in_one_place(self) -> list[Any]:
        """The objects whose box contains another's box or lies in it."""
        low, high = self._boxes[:, 0], self._boxes[:, 1]
        found = np.zeros(len(low), dtype=bool)
        for i in range(len(low)):
            inside = (low >= low[i] - self._tolerance) & (high <= high[i] + self._tolerance)
            within = inside.all(axis=1)
            within[i] = False
            found |= within
            found[i] |= within.any()
        return [obj for obj, chosen in zip(self._objects, found, strict=True) if chosen]

    def keep_apart(self, objects: list[Any]) -> None:
        """Slightly shrink each of `objects` that has the same box as an earlier one."""
        known: list[NDArray[np.float64]] = []
        for obj in objects:
            box = self._boxes[self._objects.index(obj)]
            equal = sum(bool(np.abs(box - other).max() < self._tolerance) for other in known)
            known.append(box)
            if equal:
                _shrink(obj, 1 - equal * GAP, box.mean(axis=0) * self._size + self._middle)

    def faces(self, obj: Any) -> NDArray[np.uint64]:
        """Three numbers (M, 3) for each polygon of `obj`.

        Polygons coincide if any of their numbers is the same. Each is a hash of the corners'
        centre, extent and slant, rounded to one of three shifted grids: a tiny difference cannot
        cross a cell border in all of them.
        """
        mesh = obj.data
        numbers = np.empty((len(mesh.polygons), 3), np.uint64)
        end = 0
        for shape in _shapes(mesh, _matrix(obj), self._middle, self._size):
            start, end = end, end + len(shape)
            for i, shift in enumerate((0.0, 1 / 3, 2 / 3)):
                numbers[start:end, i] = _hashed(np.floor(shape / self._tolerance + shift))
        return numbers


def _shapes(
    mesh: Any, matrix: NDArray[np.float64], middle: NDArray[np.float64], size: float
) -> Iterator[NDArray[np.float64]]:
    """(N, 9) centre, extent and slant of the polygons, in several parts."""
    count = len(mesh.polygons)
    corners = np.empty(len(mesh.loops), dtype=np.int32)
    starts = np.empty(count + 1, dtype=np.int64)
    first = np.empty(count, dtype=np.int32)
    mesh.loops.foreach_get("vertex_index", corners)
    mesh.polygons.foreach_get("loop_start", first)
    starts[:-1], starts[-1] = first, len(corners)
    vertices = (_positions(mesh) @ matrix[:3, :3].T + matrix[:3, 3] - middle) / size
    for begin in range(0, count, FACES_AT_ONCE):
        edges = starts[begin : begin + FACES_AT_ONCE + 1]
        within, sizes = edges[:-1] - edges[0], np.diff(edges)[:, None]
        points = vertices[corners[edges[0] : edges[-1]]]
        center = np.add.reduceat(points, within) / sizes
        offset = points - np.repeat(center, sizes[:, 0], axis=0)
        extent = np.add.reduceat(np.abs(offset), within)
        slant = np.add.reduceat(offset * np.roll(offset, 1, axis=1), within)
        slant /= np.maximum(extent.sum(axis=1, keepdims=True), 1e-30)
        yield np.concatenate([center, extent, slant], axis=1)


def _hashed(cells: NDArray[np.float64]) -> NDArray[np.uint64]:
    """A hash (N,) of each row of whole numbers (N, K)."""
    number = np.zeros(len(cells), np.uint64)
    # Values that are not finite get a cell of their own, far from all finite ones.
    whole = np.nan_to_num(cells, nan=2.0**62, posinf=2.0**62, neginf=-(2.0**62)).clip(
        -(2**62), 2**62
    )
    for column in whole.astype(np.int64).view(np.uint64).T:
        number = (number ^ column) * _ODD[0]
        for shift, factor in ((32, _ODD[1]), (29, _ODD[2]), (32, _ODD[3])):
            number = (number ^ (number >> np.uint64(shift))) * factor
    return number


def _doubled(numbers: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """(M,) whether a polygon coincides with an earlier one; `numbers` are from `_Place.faces`."""
    doubled = np.zeros(len(numbers), dtype=bool)
    for column in numbers.T:
        first = np.unique(column, return_index=True)[1]
        again = np.ones(len(numbers), dtype=bool)
        again[first] = False
        doubled |= again
    return doubled


def _remove(stage: Stage, obj: Any, doubled: NDArray[np.bool_]) -> None:
    """Remove faces of one object, which may share its mesh, or the whole object."""
    if doubled.all():
        stage.objects.remove(obj)
        stage.scene.collection.objects.unlink(obj)
    elif doubled.any():
        if obj.data.users > 1:
            obj.data = stage.own(obj.data.copy())
        _delete(obj.data, doubled)


def _delete(mesh: Any, doubled: NDArray[np.bool_]) -> None:
    if not doubled.any():
        return
    edited = bmesh.new()
    try:
        edited.from_mesh(mesh)
        faces = [face for face, double in zip(edited.faces, doubled, strict=True) if double]
        bmesh.ops.delete(edited, geom=faces, context="FACES_ONLY")
        edited.to_mesh(mesh)
    finally:
        edited.free()


def _shrink(obj: Any, factor: float, middle: NDArray[np.float64]) -> None:
    matrix = _matrix(obj)
    matrix[:3, :3] *= factor
    matrix[:3, 3] = middle + factor * (matrix[:3, 3] - middle)
    obj.matrix_parent_inverse = matrix.tolist()


def _matrix(obj: Any) -> NDArray[np.float64]:
    """The matrix with which `Stage.add_copies` placed an object."""
    return np.array(obj.matrix_parent_inverse, dtype=np.float64)


def _box(obj: Any) -> NDArray[np.float64]:
    """(2, 3) minimum and maximum, in scene space, of the corners of an object's local box."""
    positions = _positions(obj.data)
    positions = positions[np.isfinite(positions).all(axis=1)]
    if not len(positions):
        return np.zeros((2, 3))
    ends = np.stack([positions.min(axis=0), positions.max(axis=0)])
    corners = np.array(
        [[ends[i, 0], ends[j, 1], ends[k, 2]] for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    )
    matrix = _matrix(obj)
    corners = corners @ matrix[:3, :3].T + matrix[:3, 3]
    return np.stack([corners.min(axis=0), corners.max(axis=0)])


def _positions(mesh: Any) -> NDArray[np.float64]:
    positions = np.empty((len(mesh.vertices), 3), dtype=np.float32)
    mesh.vertices.foreach_get("co", positions.reshape(-1))
    return positions.astype(np.float64)
