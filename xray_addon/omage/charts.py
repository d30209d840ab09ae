"""The charts of a UV map: faces that share edges in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .patches import components

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

UV_STEPS = 1 << 20  # places along a side of the UV map that are told apart


@dataclass(frozen=True, eq=False)
class Charts:
    """The charts of M faces.

    chart : (M,) number of each face's chart, from 0. count : how many there are.
    border : (M, 3) whether no other face of the map shares the edge from a corner to the next.
    """

    chart: Ints
    count: int
    border: NDArray[np.bool_]

    @classmethod
    def of(cls, vertex: Ints, uvs: Floats) -> Charts:
        """From the vertex (M, 3) and UVs (M, 3, 2) of each corner.

        Faces belong together where they share an edge: both ends the same vertices at the same
        places in the map.
        """
        flat = uvs.reshape(-1, 2)
        low = flat.min(axis=0)
        extent = max(float((flat.max(axis=0) - low).max()), 1e-12)
        step = np.rint((flat - low) / extent * (UV_STEPS - 1)).astype(np.int64)
        # A whole number for each place of a vertex in the map: 20 bits an axis leave 22.
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
        """(count,) of values (M,) of the faces."""
        return np.bincount(self.chart, values, minlength=self.count).astype(np.float64)

    def boxes(self, uvs: Floats) -> tuple[Floats, Floats]:
        """Lowest and highest corner (count, 2) of each chart in the map."""
        low = np.full((self.count, 2), np.inf)
        high = np.full((self.count, 2), -np.inf)
        np.minimum.at(low, self.chart, uvs.min(axis=1))
        np.maximum.at(high, self.chart, uvs.max(axis=1))
        return low, high


def welded(vertices: Floats, distance: float) -> Ints:
    """For each of vertices (N, 3) a number that those in the same cell of a grid share."""
    cell = np.rint((vertices - vertices.min(axis=0, initial=0.0)) / distance).astype(np.int64)
    size = cell.max(axis=0, initial=0) + 1
    key = (cell[:, 0] * size[1] + cell[:, 1]) * size[2] + cell[:, 2]
    return np.unique(key, return_inverse=True)[1].reshape(-1)


def areas(points: Floats) -> Floats:
    """(M,) of triangles (M, 3, 2 or 3)."""
    first, second = points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]
    if points.shape[2] == 2:
        return np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2
    return np.linalg.norm(np.cross(first, second), axis=1) / 2
