"""The connected pieces of a triangle mesh."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .remeshing import compacted
from .topology import parts

_Mesh = tuple[NDArray[np.floating], NDArray[np.integer]]


def without_crumbs(
    vertices: NDArray[np.floating], faces: NDArray[np.integer], share: float
) -> _Mesh:
    """Vertices (N, 3) and faces (F, 3) without pieces whose area is below `share` of the largest
    piece's."""
    if not len(faces):
        return vertices, faces
    _, part = parts(faces[:, [0, 1, 1, 2]].reshape(-1, 2), len(vertices))
    piece = part[faces[:, 0]]
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    area = np.bincount(piece, np.linalg.norm(np.cross(b - a, c - a), axis=1))
    return compacted(vertices, faces[area[piece] >= share * area.max()])
