"""The input of both kernels of `cast`: a surface in camera space, and faces clipped to the image.

Projected vertices are snapped to a grid of `SNAP` steps per pixel, and coverage is decided in these
integers; see `casting`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..camera import Camera
from ..surface import Surface

SNAP_BITS = 15
SNAP = 1 << SNAP_BITS  # grid steps per pixel: a vertex moves at most 1.5e-5 px
# Vertices farther out are clipped, so that products of two differences fit into 63 bits.
GUARD_PIXELS = 1 << 14
# Surfaces nearer than this share of the farthest vertex's distance are clipped.
NEAR = 1e-7
# Depths are clamped to at least this before they are inverted.
NEAREST = 1e-300
# Larger coordinates are treated as infinite: products of three differences would overflow.
FARTHEST = 1e100

Floats = NDArray[np.float64]
Ints = NDArray[np.signedinteger]
# Flat pixel (K,), face (K,) and distance (K,) of hits, in the order of the faces.
Hits = tuple[Ints, Ints, Floats]

# Vertices (N, 3) relative to a position (3,), in the axes that are the columns of a matrix (3, 3);
# and the greatest absolute coordinate, which is NaN or infinite if any vertex is.
Moved = Callable[[NDArray[np.floating[Any]], Floats, Floats], tuple[Floats, float]]


@dataclass(frozen=True, eq=False)
class Scene:
    """A surface as one camera sees it.

    vertices (N, 3) : camera space; NaN if not finite, and then their faces are ignored.
    faces (M, 3) : C-ordered.
    near : surfaces nearer than this along the view axis are clipped.
    focal, shift_x, shift_y : column = focal * x / -z + shift_x, row = -focal * y / -z + shift_y;
        rays pass through integer coordinates.
    ray_x (W,), ray_y (H,) : x and y at z = -1 of the rays of each column and row.
    """

    vertices: Floats
    faces: Ints
    near: float
    focal: float
    shift_x: float
    shift_y: float
    ray_x: Floats
    ray_y: Floats

    @classmethod
    def of(cls, surface: Surface, camera: Camera, moved: Moved) -> Scene:
        """`surface` seen by `camera`; `moved` is the kernel's function."""
        assert camera.cx is not None
        assert camera.cy is not None
        vertices, farthest = moved(
            surface.vertices, camera.position, camera.camera_to_world[:3, :3]
        )
        if not farthest <= FARTHEST:
            vertices[~(np.abs(vertices) <= FARTHEST).all(axis=1)] = np.nan
            farthest = float(np.nanmax(np.abs(vertices), initial=0.0))
        faces = surface.faces
        if faces.dtype not in (np.int32, np.int64):
            faces = faces.astype(np.int64)
        return cls(
            vertices,
            np.ascontiguousarray(faces),
            NEAR * farthest,
            camera.focal,
            camera.cx - camera.pixel_offset,
            camera.cy - camera.pixel_offset,
            (np.arange(camera.width) + (camera.pixel_offset - camera.cx)) / camera.focal,
            (np.arange(camera.height) + (camera.pixel_offset - camera.cy)) / -camera.focal,
        )

    def window(self) -> tuple[slice, slice]:
        """The rows and columns that contain all hits; the whole image if they are hard to find."""
        ahead = -self.vertices[:, 2]
        if not len(ahead) or not (ahead > self.near).all():
            return slice(0, self.height), slice(0, self.width)
        seen = []
        for values, shift, size in (
            (-self.vertices[:, 1], self.shift_y, self.height),
            (self.vertices[:, 0], self.shift_x, self.width),
        ):
            place = self.focal * values / ahead + shift
            low, high = np.clip([np.floor(place.min()), np.ceil(place.max()) + 1], 0, size)
            seen.append(slice(int(low), int(high)))
        return seen[0], seen[1]

    def cropped(self, rows: slice, columns: slice) -> Scene:
        """The same surface seen by the rays of a part of the image."""
        return replace(
            self,
            shift_x=self.shift_x - columns.start,
            shift_y=self.shift_y - rows.start,
            ray_x=self.ray_x[columns],
            ray_y=self.ray_y[rows],
        )

    @property
    def width(self) -> int:
        """Columns of the image."""
        return len(self.ray_x)

    @property
    def height(self) -> int:
        """Rows of the image."""
        return len(self.ray_y)


def clip(scene: Scene, face: Ints) -> tuple[Ints, Ints, Ints]:
    """Clip faces (P,) to the space in front of the camera and inside the guard band.

    Returns the face (T,) and the snapped corners x, y (3, T) of the remaining triangles. The cut
    point of an edge is bitwise identical for both of its faces, so cuts leave no gaps. Faces with
    a vertex that is not finite are removed.
    """
    face = face[np.isfinite(scene.vertices[scene.faces[face]]).all(axis=(1, 2))]
    if not len(face):
        return face, np.empty((3, 0), np.int64), np.empty((3, 0), np.int64)
    margin = GUARD_PIXELS - 2
    focal, near = scene.focal, scene.near
    # A point is kept if normal . (x, y, z) >= offset.
    planes = [
        ((0.0, 0.0, -1.0), near),
        ((focal, 0.0, -(margin + scene.shift_x)), 0.0),
        ((-focal, 0.0, -(margin - scene.shift_x)), 0.0),
        ((0.0, -focal, -(margin + scene.shift_y)), 0.0),
        ((0.0, focal, -(margin - scene.shift_y)), 0.0),
    ]
    polygon = scene.vertices[scene.faces[face]]  # (P, V, 3); the first `count` corners are used
    count = np.full(len(face), 3)
    for normal, offset in planes:
        size = polygon.shape[1]
        height = polygon @ np.array(normal) - offset
        following = (np.arange(size) + 1) % np.maximum(count, 1)[:, None]
        used = np.arange(size) < count[:, None]
        next_height = np.take_along_axis(height, following, axis=1)
        next_point = np.take_along_axis(polygon, following[:, :, None], axis=1)
        inside = used & (height >= 0)
        crosses = used & ((height >= 0) != (next_height >= 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            cut = (polygon * next_height[:, :, None] - next_point * height[:, :, None]) / (
                next_height - height
            )[:, :, None]
        # Each corner emits itself and then the cut after it.
        emits = np.stack([inside, crosses], axis=2).reshape(len(polygon), -1)
        points = np.stack([polygon, cut], axis=2).reshape(len(polygon), -1, 3)
        place = np.cumsum(emits, axis=1) - 1
        count = emits.sum(axis=1)
        polygon = np.zeros((len(points), max(int(count.max(initial=0)), 3), 3))
        row, column = np.nonzero(emits)
        polygon[row, place[row, column]] = points[row, column]
    fan = np.arange(1, polygon.shape[1] - 1)
    owner, second = np.nonzero(fan[None, :] + 1 < count[:, None])
    corners = np.stack([np.zeros_like(second), second + 1, second + 2], axis=1)
    points = polygon[owner[:, None], corners]  # (T, 3, 3)
    ahead = np.maximum(-points[..., 2], near)
    x = np.clip(focal * points[..., 0] / ahead + scene.shift_x, -GUARD_PIXELS, GUARD_PIXELS)
    y = np.clip(-focal * points[..., 1] / ahead + scene.shift_y, -GUARD_PIXELS, GUARD_PIXELS)
    return (
        face[owner],
        np.rint(x.T * SNAP).astype(np.int64),
        np.rint(y.T * SNAP).astype(np.int64),
    )
