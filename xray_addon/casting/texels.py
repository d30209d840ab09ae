"""Rasterises UV charts with the caster's exact coverage: a camera looks at the UV plane."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..camera import Camera
from ..surface import Surface
from . import cast

if TYPE_CHECKING:
    from ..xray import XRay

TILE = 2048  # side in texels of the square that is cast at once, to limit the memory


def cast_uvs(uvs: NDArray[np.floating], size: int, layers: int) -> XRay:
    """Which triangles (`hit_face`) cover each texel of a square image, by their UVs (M, 3, 2)."""
    return _cast(uvs, size, layers, (0, 0, size, size))


def covered_texels(
    uvs: NDArray[np.floating], size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.integer], NDArray[np.float64]]]:
    """The texels whose centres are covered by triangles, each once, in several parts.

    uvs : (M, 3, 2) of the triangles' corners, origin bottom left. Parts outside 0..1 are ignored.

    Yields flat indices (N,) into an image of `size` x `size`, row 0 at the top, with the triangle
    (N,) and the weights (N, 3) of its corners at each texel's centre.
    """
    for row in range(0, size, TILE):
        for column in range(0, size, TILE):
            height, width = min(TILE, size - row), min(TILE, size - column)
            seen = _cast(uvs, size, 1, (row, column, height, width))
            face = seen.hit_face
            assert face is not None
            y, x = row + seen.index // width, column + seen.index % width
            places = np.stack([x + 0.5, size - y - 0.5], axis=-1) / size
            yield y * size + x, face, _barycentric(uvs[face], places)


def _cast(
    uvs: NDArray[np.floating], size: int, layers: int, window: tuple[int, int, int, int]
) -> XRay:
    """Cast a window (first row and column, height, width) of the image."""
    # The image is a unit square seen by a pinhole camera one unit away.
    row, column, height, width = window
    pose = np.eye(4)
    pose[:3, 3] = (0.5, 0.5, 1.0)
    fov = 2 * math.atan(0.5 * width / size)
    camera = Camera(width, height, fov, pose, cx=size / 2 - column, cy=size / 2 - row)
    corners = uvs.reshape(-1, 2)
    flat = np.concatenate([corners, np.zeros((len(corners), 1))], axis=1)
    return cast(Surface(flat, np.arange(len(flat)).reshape(-1, 3)), camera, layers, faces=True)


def _barycentric(
    triangles: NDArray[np.floating], points: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Weights (N, 3) of the corners of `triangles` (N, 3, 2) at `points` (N, 2)."""
    a, b, c = (triangles[:, i].astype(np.float64) for i in range(3))
    ab, ac, ap = b - a, c - a, points - a
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    second = (ap[:, 0] * ac[:, 1] - ap[:, 1] * ac[:, 0]) / area
    third = (ab[:, 0] * ap[:, 1] - ab[:, 1] * ap[:, 0]) / area
    return np.stack([1 - second - third, second, third], axis=-1)
