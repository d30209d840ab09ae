"""Baked textures: an atlas by xatlas, and the field's colour at each texel's place in space."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import xatlas
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

_CANDIDATES = 1 << 21  # texels that are looked at in one go


def bake(
    vertices: NDArray[np.float32],
    faces: NDArray[np.integer],
    color_at: Callable[[NDArray[np.float32]], NDArray[np.floating]],
    size: int,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """UVs of the corners (F, 3, 2), origin bottom left, and a texture (size, size, 3), row 0 top.

    color_at : places (N, 3) to colours (N, 3), 0..1. Texels beside the charts take the colour of
    the nearest one inside, so that no seam shows.
    """
    uvs = unwrap(vertices, faces, size)
    texels, places = [np.zeros(0, np.int64)], [np.zeros((0, 3), np.float32)]
    for index, face, weights in rasterize(uvs, size):
        texels.append(index)
        places.append(np.einsum("nk,nkc->nc", weights, vertices[faces[face]]).astype(np.float32))
    covered, first = np.unique(np.concatenate(texels), return_index=True)
    image = np.zeros((size * size, 3), np.uint8)
    if len(covered):
        colors = color_at(np.concatenate(places)[first])
        image[covered] = np.rint(np.clip(colors, 0, 1) * 255)
        empty = np.ones(size * size, bool)
        empty[covered] = False
        nearest: Any = distance_transform_edt(
            empty.reshape(size, size), return_distances=False, return_indices=True
        )
        image = image[nearest[0] * size + nearest[1]]
    return uvs, image.reshape(size, size, 3)


def unwrap(
    vertices: NDArray[np.float32], faces: NDArray[np.integer], size: int
) -> NDArray[np.float32]:
    """UVs (F, 3, 2), 0..1, of an atlas for a texture of `size` px."""
    pack = xatlas.PackOptions()
    pack.resolution = size
    pack.padding = max(2, round(size / 256))
    pack.bilinear = True
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices.astype(np.float32), faces.astype(np.uint32))
    atlas.generate(pack_options=pack)
    _, corners, uvs = atlas[0]
    return uvs[corners].astype(np.float32)


def rasterize(
    uvs: NDArray[np.floating], size: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
    """Texels whose centres triangles cover: flat indices (N,), faces (N,) and weights (N, 3).

    uvs : (F, 3, 2) corners, origin bottom left; texels are counted from the top left.
    """
    corners = np.stack([uvs[..., 0], 1 - uvs[..., 1]], axis=-1).astype(np.float64) * size - 0.5
    low = np.clip(np.ceil(corners.min(axis=1)), 0, size).astype(np.int64)
    high = np.clip(np.floor(corners.max(axis=1)) + 1, 0, size).astype(np.int64)
    extent = np.maximum(high - low, 0)
    count = extent.prod(axis=1)
    total = np.cumsum(count)
    start = 0
    while start < len(count):
        before = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, before + _CANDIDATES, side="right")))
        face = np.repeat(np.arange(start, stop), count[start:stop])
        number = (
            np.arange(len(face))
            - np.repeat(total[start:stop] - count[start:stop], count[start:stop])
            + before
        )
        x = low[face, 0] + number % np.maximum(extent[face, 0], 1)
        y = low[face, 1] + number // np.maximum(extent[face, 0], 1)
        weights, inside = _weights(corners[face], np.stack([x, y], axis=-1))
        yield (y * size + x)[inside], face[inside], weights[inside]
        start = stop


def _weights(
    corners: NDArray[np.float64], points: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Barycentric weights (N, 3) of points (N, 2) and whether they lie inside."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]

    def area(p: NDArray[Any], q: NDArray[Any], r: NDArray[Any]) -> NDArray[np.float64]:
        u, v = q - p, r - p
        return u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]

    whole = area(a, b, c)
    flat = whole == 0
    parts = np.stack([area(b, c, points), area(c, a, points), area(a, b, points)], axis=1)
    weights = parts / np.where(flat, 1.0, whole)[:, None]
    return weights, (weights >= -1e-9).all(axis=1) & ~flat
