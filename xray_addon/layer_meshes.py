"""Meshes over the hits of one layer of an X-Ray, for viewing and editing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .reconstruction import OPEN_COST, connection_cost

if TYPE_CHECKING:
    from .camera import Camera
    from .xray import XRay


def layer_faces(
    xray: XRay, camera: Camera, layer: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Faces between the hits of neighbouring pixels in one layer: quads (Q, 4), triangles (T, 3).

    They index the layer's hits in the X-Ray's order and are wound by the hits' normals. Hits are
    not joined across a jump of the surface, where `reconstruct` would leave both open. A hit
    without joined neighbours has no face.

    Raises ValueError if the camera's image size is not the X-Ray's.
    """
    _, height, width = xray.shape
    if (camera.height, camera.width) != (height, width):
        raise ValueError(
            f"the X-Ray is {width}x{height} pixels, the camera {camera.width}x{camera.height}"
        )
    pixels = height * width
    start, stop = np.searchsorted(xray.index, [layer * pixels, (layer + 1) * pixels])
    pixel = xray.index[start:stop] - layer * pixels
    depth = xray.hit_depth[start:stop].astype(np.float64)
    normals = xray.hit_normal[start:stop].astype(np.float64)
    rays = camera.ray_directions(pixel // width, pixel % width)
    points = rays * depth[:, None]

    grid = np.full(pixels, -1, dtype=np.int64)
    grid[pixel] = np.arange(len(pixel))
    grid = grid.reshape(height, width)
    # Corners counter-clockwise in the image: top left, bottom left, bottom right, top right.
    cells = np.stack([grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]], axis=-1)
    cells = cells.reshape(-1, 4)
    cells = cells[(cells >= 0).sum(axis=1) >= 3]

    def joined(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.bool_]:
        both = np.minimum(a, b) >= 0
        cost = connection_cost(points, normals, a, b)
        return both & (cost < 2 * OPEN_COST * np.minimum(depth[a], depth[b]) / camera.focal)

    sides = np.stack([joined(cells[:, i], cells[:, (i + 1) % 4]) for i in range(4)], axis=1)
    whole = sides.all(axis=1)
    quads = cells[whole]
    cells, sides = cells[~whole], sides[~whole]
    triangles = np.empty((0, 3), dtype=np.int64)
    for left_out in range(4):
        a, b, c = ((left_out + i) % 4 for i in (1, 2, 3))
        fits = sides[:, a] & sides[:, b] & joined(cells[:, c], cells[:, a])
        triangles = np.concatenate([triangles, cells[fits][:, [a, b, c]]])
        cells, sides = cells[~fits], sides[~fits]
    leaving = np.einsum("ij,ij->i", normals, rays) > 0
    return _turned(quads, leaving), _turned(triangles, leaving)


def _turned(faces: NDArray[np.int64], leaving: NDArray[np.bool_]) -> NDArray[np.int64]:
    """`faces`, with the winding reversed if more corners leave a solid than enter it."""
    away = 2 * leaving[faces].sum(axis=1) > faces.shape[1]
    return np.where(away[:, None], faces[:, ::-1], faces)
