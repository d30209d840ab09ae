"""UV charts as what a camera above the UV plane sees, with the caster's exact coverage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..camera import Camera
from ..surface import Surface
from . import cast

if TYPE_CHECKING:
    from ..xray import XRay

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RING = 1.0  # px beyond a border, along each axis, that show its nearest point


def cast_uvs(uvs: NDArray[np.floating], size: int, layers: int) -> XRay:
    """Which triangles (`hit_face`) cover each texel of a square image, by their UVs (3M, 2)."""
    # The image as a pinhole camera sees a unit square one unit away.
    pose = np.eye(4)
    pose[:3, 3] = (0.5, 0.5, 1.0)
    camera = Camera(size, size, 2 * np.arctan(0.5), pose)
    flat = np.concatenate([uvs, np.zeros((len(uvs), 1))], axis=1)
    return cast(Surface(flat, np.arange(len(uvs)).reshape(-1, 3)), camera, layers, faces=True)


@dataclass(frozen=True, eq=False)
class Texels:
    """pixel : (K,) flat, row 0 at the top. face : (K,). weights : (K, 3) of the face's corners."""

    pixel: Ints
    face: Ints
    weights: Floats


def texels(uvs: NDArray[np.floating], size: int, border: NDArray[np.bool_] | None = None) -> Texels:
    """Every pixel of a square image whose centre a face covers, once.

    uvs : (M, 3, 2), 0 to 1, origin at the bottom left. border : (M, 3) edges from a corner to the
    next around which a ring of pixels shows the nearest point of the edge itself. With it an
    image holds a chart up to its very border, and no chart is too thin to be seen.
    """
    uvs = uvs.astype(np.float64)
    xray = cast_uvs(uvs.reshape(-1, 2), size, 1)
    assert xray.hit_face is not None
    pixel, face = xray.index, xray.hit_face.astype(np.int64)
    # In pixels, row 0 at the top and whole numbers at the centres.
    corners = np.stack([uvs[..., 0], 1 - uvs[..., 1]], axis=-1) * size - 0.5
    weights = _weights(corners[face], np.stack([pixel % size, pixel // size], axis=1))
    if border is None:
        return Texels(pixel, face, weights)
    ring = _ring(corners, border, size)
    covered = np.zeros(size * size, bool)
    covered[pixel] = True
    new = ~covered[ring.pixel]
    return Texels(
        np.concatenate([pixel, ring.pixel[new]]),
        np.concatenate([face, ring.face[new]]),
        np.concatenate([weights, ring.weights[new]]),
    )


def _ring(corners: Floats, border: NDArray[np.bool_], size: int) -> Texels:
    """The nearest point of a border for each pixel that lies within `RING` of one.

    corners : (M, 3, 2) in pixels.
    """
    face, corner = np.nonzero(border)
    following = (corner + 1) % 3
    start, stop = corners[face, corner], corners[face, following]
    # Pixels around points every half pixel along the edges.
    count = np.ceil(np.linalg.norm(stop - start, axis=1) * 2).astype(np.int64) + 1
    edge = np.repeat(np.arange(len(face)), count)
    number = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    share = (number / np.maximum(count - 1, 1)[edge])[:, None]
    middle = np.rint(start[edge] + (stop - start)[edge] * share).astype(np.int64)
    around = np.stack(np.meshgrid((-1, 0, 1), (-1, 0, 1)), axis=-1).reshape(-1, 2)
    place = (middle[:, None] + around).reshape(-1, 2)
    edge = np.repeat(edge, len(around))
    inside = ((place >= 0) & (place < size)).all(axis=1)
    place, edge = place[inside], edge[inside]
    along = (stop - start)[edge]
    length = np.einsum("ij,ij->i", along, along)
    share = np.einsum("ij,ij->i", place - start[edge], along) / np.where(length > 0, length, 1)
    share = np.clip(share, 0, 1)
    gap = place - start[edge] - along * share[:, None]
    near = np.abs(gap).max(axis=1) <= RING
    place, edge, share, gap = place[near], edge[near], share[near], gap[near]
    pixel = place[:, 1] * size + place[:, 0]
    by_distance = np.lexsort((np.einsum("ij,ij->i", gap, gap), pixel))
    pixel, first = np.unique(pixel[by_distance], return_index=True)
    chosen = by_distance[first]
    edge, share = edge[chosen], share[chosen]
    weights = np.zeros((len(edge), 3))
    rows = np.arange(len(edge))
    weights[rows, corner[edge]] = 1 - share
    weights[rows, following[edge]] = share
    return Texels(pixel, face[edge], weights)


def _weights(corners: Floats, points: Floats) -> Floats:
    """Barycentric weights (K, 3) of points (K, 2) in triangles (K, 3, 2); within 0 to 1."""
    a, b, c = (corners[:, number] - points for number in range(3))
    parts = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], axis=1)
    whole = parts.sum(axis=1, keepdims=True)
    weights = np.clip(parts / np.where(whole == 0, 1, whole), 0, 1)
    total = weights.sum(axis=1, keepdims=True)
    return np.where(total > 0, weights / np.where(total > 0, total, 1), 1 / 3)


def _cross(a: Floats, b: Floats) -> Floats:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
