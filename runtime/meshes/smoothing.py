"""Graph operators of triangle meshes, for smoothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.floating]


def neighbour_mean(faces: NDArray[np.integer], count: int) -> sparse.csr_matrix:
    """The matrix (count, count) that maps each vertex to the mean of its edge neighbours.

    faces : (F, 3). A vertex without a face is mapped to 0.
    """
    ends = np.concatenate([faces, faces[:, [1, 2, 0]]]).ravel()
    others = np.concatenate([faces[:, [1, 2, 0]], faces]).ravel()
    links = sparse.csr_matrix((np.ones(len(ends)), (ends, others)), shape=(count, count))
    links.data[:] = 1  # an edge counts once for any number of faces
    return sparse.diags(1 / np.maximum(links.sum(axis=1).A1, 1)) @ links


def vertex_normals(vertices: Floats, faces: NDArray[np.integer]) -> NDArray[np.float64]:
    """Unit normals (N, 3): the area-weighted mean of the normals of a vertex's faces."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    around = sparse.csr_matrix(
        (np.ones(faces.size), (faces.ravel(), np.repeat(np.arange(len(faces)), 3))),
        shape=(len(vertices), len(faces)),
    )
    normal: NDArray[np.float64] = around @ np.cross(b - a, c - a)
    return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)


def taubin(vertices: Floats, faces: NDArray[np.integer], rounds: int) -> NDArray[np.float64]:
    """Vertices (N, 3) with the steps between them smoothed.

    Taubin, "A signal processing approach to fair surface design" (SIGGRAPH 1995): each round
    shrinks the mesh a little and grows it again, which keeps its volume.
    """
    result: NDArray[np.float64] = vertices.astype(np.float64)
    mean = neighbour_mean(faces, len(vertices))
    for _ in range(rounds):
        for step in (0.5, -0.53):
            result = result + step * (mean @ result - result)
    return result
