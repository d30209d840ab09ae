"""The kernel of `cast` compiled by numba, single-threaded; it releases the GIL.

It has the same functions as `array_kernel` and gives bitwise identical hits; see there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..color import TO_LINEAR, TO_SRGB
from ..surface import WRAPS, Material
from . import compiled_colors, compiled_faces
from .scene import Floats, Hits, Ints, Scene, clip

HITS_AT_ONCE = 1 << 16


def moved(
    vertices: NDArray[np.floating[Any]], position: Floats, rotation: Floats
) -> tuple[Floats, float]:
    """See `scene.Moved`."""
    if vertices.dtype not in (np.float32, np.float64):
        vertices = vertices.astype(np.float64)
    return compiled_faces.moved(
        np.ascontiguousarray(vertices),
        np.ascontiguousarray(position),
        np.ascontiguousarray(rotation),
    )


def hits(scene: Scene) -> Iterator[Hits]:
    """See `array_kernel.hits`."""
    yield from _hits(scene, np.empty(0, np.int32), np.empty(0))


def first_hits(scene: Scene, face: Ints, rank: Floats) -> None:
    """See `array_kernel.first_hits`."""
    for _ in _hits(scene, face, rank):
        pass  # `_hits` has already updated `face` and `rank`


def _hits(scene: Scene, first: Ints, nearest: Floats) -> Iterator[Hits]:
    """The hits. If `first` and `nearest` are not empty, these are updated instead."""
    points, all_regular = compiled_faces.project(
        scene.vertices, scene.focal, scene.shift_x, scene.shift_y, scene.near
    )
    nothing = np.empty(0, np.int64)
    yield from _collected(scene, points, scene.faces, nothing, first, nearest)
    if not all_regular:
        odd, x, y = clip(scene, compiled_faces.odd_faces(points, scene.faces))
        if len(odd):
            points = np.stack([x.T.reshape(-1), y.T.reshape(-1)], axis=1).astype(
                np.int32, copy=False
            )
            corners = np.arange(len(points), dtype=scene.faces.dtype).reshape(-1, 3)
            yield from _collected(scene, points, corners, odd.astype(np.int64), first, nearest)


def _collected(
    scene: Scene,
    points: NDArray[np.int32],
    triangles: Ints,
    owner: Ints,
    first: Ints,
    nearest: Floats,
) -> Iterator[Hits]:
    start = 0
    while start < len(triangles):
        start, pixel, face, distance = compiled_faces.collect(
            points,
            triangles,
            owner,
            scene.vertices,
            scene.faces,
            scene.ray_x,
            scene.ray_y,
            start,
            HITS_AT_ONCE,
            first,
            nearest,
        )
        yield pixel, face, distance


def nearest(found: Hits, pixels: int, layers: int) -> tuple[NDArray[np.int64], Ints, Floats]:
    """See `array_kernel.nearest`."""
    pixel, face, distance = found
    return compiled_faces.nearest(
        pixel.astype(np.int32, copy=False),
        face.astype(np.int32, copy=False),
        distance,
        pixels,
        layers,
    )


def keep_first(found: Hits, face: Ints, distance: Floats) -> None:
    """See `array_kernel.keep_first`."""
    compiled_faces.keep_first(*found, face, distance)


def samples(
    scene: Scene, face: Ints, side: int, uvs: NDArray[np.floating[Any]], slot: Ints, texels: Floats
) -> tuple[Ints, Ints, Ints, Floats, Floats]:
    """See `array_kernel.samples`."""
    return compiled_faces.samples(
        scene.vertices,
        scene.faces,
        scene.ray_x,
        scene.ray_y,
        face,
        side,
        np.ascontiguousarray(uvs),
        slot.astype(np.int32, copy=False),
        texels,
    )


def normals(scene: Scene, face: Ints) -> Floats:
    """See `array_kernel.normals`."""
    return compiled_faces.normals(scene.vertices, scene.faces, face.astype(np.int32, copy=False))


def smooth_normals(
    scene: Scene, corners: NDArray[np.floating[Any]], rotation: Floats, face: Ints, weights: Floats
) -> Floats:
    """See `array_kernel.smooth_normals`."""
    if corners.dtype not in (np.float32, np.float64):
        corners = corners.astype(np.float64)
    return compiled_faces.smooth_normals(
        scene.vertices,
        scene.faces,
        np.ascontiguousarray(corners),
        np.ascontiguousarray(rotation),
        face.astype(np.int32, copy=False),
        np.ascontiguousarray(weights),
    )


def weights(scene: Scene, face: Ints, pixel: Ints) -> Floats:
    """See `array_kernel.weights`."""
    return compiled_faces.weights(
        scene.vertices,
        scene.faces,
        scene.ray_x,
        scene.ray_y,
        face.astype(np.int32, copy=False),
        pixel.astype(np.int32, copy=False),
    )


def weights_along(scene: Scene, face: Ints, ray_x: Floats, ray_y: Floats) -> Floats:
    """See `array_kernel.weights_along`."""
    return compiled_faces.weights_along(
        scene.vertices, scene.faces, face.astype(np.int32, copy=False), ray_x, ray_y
    )


def interpolate(values: NDArray[np.floating[Any]], face: Ints, weights: Floats) -> Floats:
    """See `array_kernel.interpolate`."""
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    return compiled_colors.interpolate(
        np.ascontiguousarray(values),
        face.astype(np.int32, copy=False),
        np.ascontiguousarray(weights),
    )


def textured(
    material: Material, uvs: NDArray[np.floating[Any]], face: Ints, weights: Floats
) -> NDArray[np.float32]:
    """See `array_kernel.textured`."""
    assert material.texture is not None
    # In two passes, because a single pass mostly waits for memory.
    uv = interpolate(uvs, face, weights)
    colors = np.empty((len(face), 3), np.float32)
    return _sampled(material.texture, uv, material.wrap, material.interpolation, colors)


def sample(texture: NDArray[np.uint8], uv: Floats, wrap: str, interpolation: str) -> Floats:
    """See `casting.sample_texture`."""
    return _sampled(texture, uv, wrap, interpolation, np.empty((len(uv), 4)))


def lit(
    normal: NDArray[np.floating[Any]],
    ray: NDArray[np.floating[Any]],
    color: NDArray[np.floating[Any]],
    sky: float,
    ground: float,
    up: Floats,
    directions: Floats,
    strengths: Floats,
) -> NDArray[np.float32]:
    """See `array_kernel.lit`."""
    shown = np.empty((len(normal), 3), np.float32)
    compiled_colors.lit(
        *map(np.ascontiguousarray, (normal, ray, color)),
        float(sky),
        float(ground),
        *map(np.ascontiguousarray, (up, directions, strengths)),
        TO_LINEAR,
        TO_SRGB,
        shown,
    )
    return shown


def picture(
    pixel: Ints, count: Ints, color: NDArray[np.float32], pixels: int, rays: int
) -> NDArray[np.uint8]:
    """See `array_kernel.picture`."""
    return compiled_colors.picture(pixel, count, np.ascontiguousarray(color), pixels, rays)


def _sampled(
    texture: NDArray[np.uint8], uv: Floats, wrap: str, interpolation: str, samples: NDArray[Any]
) -> NDArray[Any]:
    compiled_colors.sample(
        np.ascontiguousarray(texture),
        np.ascontiguousarray(uv),
        WRAPS.index(wrap),
        interpolation == "linear",
        samples,
    )
    return samples
