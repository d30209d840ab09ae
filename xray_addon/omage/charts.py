"""The charts of a UV map: groups of faces that share edges in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .patches import components

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

UV_STEPS = 1 << 20  # distinct positions along a side of the UV map


@dataclass(frozen=True, eq=False)
class Charts:
    """The charts of M faces.

    chart : (M,) number of each face's chart, from 0. count : number of charts.
    border : (M, 3) whether the edge from a corner to the next belongs to no other face in the map.
    """

    chart: Ints
    count: int
    border: NDArray[np.bool_]

    @classmethod
    def of(cls, vertex: Ints, uvs: Floats) -> Charts:
        """From the vertex (M, 3) and UVs (M, 3, 2) of each corner.

        Faces belong to the same chart if they share an edge: both its ends are the same vertices at
        the same positions in the map.
        """
        flat = uvs.reshape(-1, 2)
        low = flat.min(axis=0)
        extent = max(float((flat.max(axis=0) - low).max()), 1e-12)
        step = np.rint((flat - low) / extent * (UV_STEPS - 1)).astype(np.int64)
        # An integer for each vertex and its position in the map: 20 bits per axis leave 22.
        key = (vertex.reshape(-1) * UV_STEPS + step[:, 0]) * UV_STEPS + step[:, 1]
        _, corner = np.unique(key, return_inverse=True)
        corner = corner.reshape(-1, 3)
        ends = np.stack([corner, np.roll(corner, -1, axis=1)], axis=-1).reshape(-1, 2)
        ends.sort(axis=1)
        edge = ends[:, 0] * (int(corner.max(initial=0)) + 1) + ends[:, 1]
        order = np.argsort(edge, kind="stable")
        shared = edge[order][1:] == edge[order][:-1]
        single = np.ones(len(edge), bool)
        single[order[1:][shared]] = single[order[:-1][shared]] = False
        face = order // 3
        root = components(len(vertex), face[:-1][shared], face[1:][shared])
        kept, chart = np.unique(root, return_inverse=True)
        return cls(chart.reshape(-1), len(kept), single.reshape(-1, 3))

    def sums(self, values: Floats) -> Floats:
        """Sums (count,) over each chart of the faces' values (M,)."""
        return np.bincount(self.chart, values, minlength=self.count).astype(np.float64)

    def boxes(self, uvs: Floats) -> tuple[Floats, Floats]:
        """Minimum and maximum (count, 2) of each chart's bounding box in the map."""
        low = np.full((self.count, 2), np.inf)
        high = np.full((self.count, 2), -np.inf)
        np.minimum.at(low, self.chart, uvs.min(axis=1))
        np.maximum.at(high, self.chart, uvs.max(axis=1))
        return low, high


def welded(vertices: Floats, distance: float) -> Ints:
    """A number (N,) for each of vertices (N, 3); vertices in the same grid cell share it."""
    cell = np.rint((vertices - vertices.min(axis=0, initial=0.0)) / distance).astype(np.int64)
    size = cell.max(axis=0, initial=0) + 1
    key = (cell[:, 0] * size[1] + cell[:, 1]) * size[2] + cell[:, 2]
    return np.unique(key, return_inverse=True)[1].reshape(-1)


def areas(points: Floats) -> Floats:
    """Areas (M,) of triangles (M, 3, 2 or 3)."""
    first, second = points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]
    if points.shape[2] == 2:
        return np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2
    return np.linalg.norm(np.cross(first, second), axis=1) / 2
