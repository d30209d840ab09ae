"""Makes UV maps with xatlas for meshes that have none."""

from __future__ import annotations

import numpy as np
import xatlas
from numpy.typing import NDArray

from xray_addon.surface import Surface

_SIZE = 1024  # side in px of the image for which charts are spaced


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


def unwrap_surface(surface: Surface) -> NDArray[np.float64]:
    """UVs (M, 3, 2), 0..1, for `xray_addon.omage.encoding.encode`; the faces are not changed.

    Vertices at the same position are merged, so that charts continue over existing UV seams.
    """
    vertices, index = np.unique(surface.vertices.astype(np.float32), axis=0, return_inverse=True)
    return unwrap(vertices, index.reshape(-1)[surface.faces], _SIZE).astype(np.float64)
