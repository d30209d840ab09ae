"""UV maps for meshes that have none, by xatlas."""

from __future__ import annotations

import numpy as np
import xatlas
from numpy.typing import NDArray


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
