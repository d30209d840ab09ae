"""Estimates the normals of omages without normals from the positions, with one side per patch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .meshing import grid_faces
from .patches import label_patches

Floats = NDArray[np.float64]


def estimated_normals(occupied: NDArray[np.bool_], position: Floats) -> Floats:
    """Unit normals (R, R, 3) of positions (R, R, 3): the mean of the faces around each pixel.

    All faces of a patch have the same winding, so they face the same side: the one that, summed
    over the patch's area, faces away from the object's centre. Normals are 0 without faces.
    """
    points = position.reshape(-1, 3)
    patch = label_patches(occupied).ravel()
    faces = grid_faces(occupied)
    # Faces that wrap around the image's borders connect unrelated pixels.
    size = occupied.shape[1]
    row, column = np.divmod(faces, size)
    near = (np.ptp(row, axis=1) <= 1) & (np.ptp(column, axis=1) <= 1)
    faces = faces[near]
    first, second, third = (points[faces[:, corner]] for corner in range(3))
    across = np.cross(second - first, third - first)
    low, high = (
        points[occupied.ravel()].min(axis=0, initial=1),
        points[occupied.ravel()].max(axis=0, initial=-1),
    )
    outwards = np.einsum("ij,ij->i", (first + second + third) / 3 - (low + high) / 2, across)
    volume = np.bincount(patch[faces[:, 0]], outwards, minlength=int(patch.max(initial=0)) + 1)
    across[volume[patch[faces[:, 0]]] < 0] *= -1
    total = np.stack(
        [
            np.bincount(faces.ravel(), np.repeat(axis, 3), minlength=len(points))
            for axis in across.T
        ],
        axis=1,
    )
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return (total / np.where(length > 0, length, 1)).reshape(position.shape)
