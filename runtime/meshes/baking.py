"""Bakes textures: an atlas by xatlas with a field's colour at each texel's position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from xray_addon.casting.texels import covered_texels

from .unwrapping import unwrap


def bake(
    vertices: NDArray[np.float32],
    faces: NDArray[np.integer],
    color_at: Callable[[NDArray[np.float32]], NDArray[np.floating]],
    size: int,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """UVs of the corners (F, 3, 2), origin bottom left, and a texture (size, size, 3), row 0 top.

    color_at : maps points (N, 3) to colours (N, 3), 0..1. Texels outside the charts get the colour
    of the nearest texel inside, to avoid seams.
    """
    uvs = unwrap(vertices, faces, size)
    image, empty = np.zeros((size * size, 3), np.uint8), np.ones(size * size, bool)
    for texel, face, weights in covered_texels(uvs, size):
        if len(texel):
            places = np.einsum("nk,nkc->nc", weights, vertices[faces[face]])
            image[texel] = np.rint(np.clip(color_at(places.astype(np.float32)), 0, 1) * 255)
            empty[texel] = False
    if not empty.all():
        nearest: Any = distance_transform_edt(
            empty.reshape(size, size), return_distances=False, return_indices=True
        )
        image = image[nearest[0] * size + nearest[1]]
    return uvs, image.reshape(size, size, 3)
