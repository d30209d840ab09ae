"""Colours a mesh from the image; hidden parts get the colours of the nearest visible ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from xray_addon.camera import Camera
from xray_addon.casting import cast
from xray_addon.surface import Surface

from ..meshes.trees import tree

GREY = 0.5
# A vertex is visible if it is behind the first hit of its ray by at most this share of its
# distance, a bit more than a cell of the mesh.
_BEHIND = 0.01
# Pixels along a cut-out's edge show some of the background.
_EDGE = 2


def paint(
    surface: Surface, rgba: NDArray[np.uint8], camera: Camera, *, spread: bool = True
) -> NDArray[np.float32]:
    """Colours (V, 3), sRGB-encoded 0..1, of the vertices of `surface` as seen by `camera`.

    rgba : (H, W, 4) the object, in the camera's size. Hidden vertices get the colour of the nearest
    visible one, or grey without `spread`.
    """
    places = surface.vertices.astype(np.float64)
    seen, row, column = _seen(surface, places, rgba, camera)
    colors = np.full((len(places), 3), GREY, dtype=np.float32)
    if not seen.any():
        return colors
    picture = rgba[..., :3].astype(np.float32) / 255.0
    at = [row[seen], column[seen]]
    colors[seen] = np.stack(
        [ndimage.map_coordinates(picture[..., c], at, order=1, mode="nearest") for c in range(3)],
        axis=1,
    )
    if spread and not seen.all():
        _, nearest = tree(places[seen]).query(places[~seen])
        colors[~seen] = colors[seen][nearest]
    return colors


def _seen(
    surface: Surface, places: NDArray[np.float64], rgba: NDArray[np.uint8], camera: Camera
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Which vertices (V,) are visible in the image, and their rows and columns (V,) in it."""
    matrix = camera.world_to_camera
    local = places @ matrix[:3, :3].T + matrix[:3, 3]
    ahead = np.maximum(-local[:, 2], 1e-9)
    assert camera.cx is not None
    assert camera.cy is not None
    column = camera.focal * local[:, 0] / ahead + camera.cx - camera.pixel_offset
    row = -camera.focal * local[:, 1] / ahead + camera.cy - camera.pixel_offset
    r, c = np.rint(row).astype(np.int64), np.rint(column).astype(np.int64)
    inside = (r >= 0) & (r < camera.height) & (c >= 0) & (c < camera.width)
    r, c = np.where(inside, r, 0), np.where(inside, c, 0)
    first = cast(surface, camera, 1).depth[0]
    # Use neighbouring pixels too: at a silhouette the nearest ray may just miss the mesh.
    farthest = ndimage.maximum_filter(first, 3)[r, c]
    distance = np.linalg.norm(local, axis=1)
    unhidden = (farthest > 0) & (distance <= farthest + _BEHIND * distance)
    solid = rgba[..., 3] > 127
    inner = ndimage.binary_erosion(solid, iterations=_EDGE, border_value=1)
    return inside & unhidden & (inner if inner.any() else solid)[r, c], row, column
