"""The pixels of UV charts, with a ring around each chart that stores its border."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .texels import covered_texels

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RING = 1.0  # px beyond a border, along each axis, that get its nearest point


@dataclass(frozen=True, eq=False)
class ChartTexels:
    """pixel : (K,) flat, row 0 at the top. face : (K,). weights : (K, 3) of the face's corners."""

    pixel: Ints
    face: Ints
    weights: Floats


def chart_texels(uvs: NDArray[np.floating], border: NDArray[np.bool_], size: int) -> ChartTexels:
    """The pixels of a square image whose centre a face covers, and the ring, each once.

    uvs : (M, 3, 2), 0 to 1, origin at the bottom left. border : (M, 3) whether the edge from a
    corner to the next is a border. Ring pixels get the nearest point on a border, so the image
    contains charts up to their exact borders, and no chart is too thin to be seen.
    """
    uvs = uvs.astype(np.float64)
    pieces = list(covered_texels(uvs, size))
    pixel, face, weights = (np.concatenate(part) for part in zip(*pieces, strict=True))
    # In pixels, row 0 at the top and whole numbers at the centres.
    ring = _ring(np.stack([uvs[..., 0], 1 - uvs[..., 1]], axis=-1) * size - 0.5, border, size)
    covered = np.zeros(size * size, bool)
    covered[pixel] = True
    new = ~covered[ring.pixel]
    inside = np.clip(weights, 0, 1)
    return ChartTexels(
        np.concatenate([pixel, ring.pixel[new]]),
        np.concatenate([face.astype(np.int64), ring.face[new]]),
        np.concatenate([inside / inside.sum(axis=1, keepdims=True), ring.weights[new]]),
    )


def _ring(corners: Floats, border: NDArray[np.bool_], size: int) -> ChartTexels:
    """The nearest border point for each pixel within `RING` of a border.

    corners : (M, 3, 2) in pixels.
    """
    face, corner = np.nonzero(border)
    following = (corner + 1) % 3
    start, stop = corners[face, corner], corners[face, following]
    # The pixels around points at half-pixel intervals along the edges.
    count = np.ceil(np.linalg.norm(stop - start, axis=1) * 2).astype(np.int64) + 1
    edge = np.repeat(np.arange(len(face)), count)
    number = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    share = (number / np.maximum(count - 1, 1)[edge])[:, None]
    middle = np.rint(start[edge] + (stop - start)[edge] * share).astype(np.int64)
    around = np.stack(np.meshgrid((-1, 0, 1), (-1, 0, 1)), axis=-1).reshape(-1, 2)
    place = (middle[:, None] + around).reshape(-1, 2)
    edge = np.repeat(edge, len(around))
    inside = ((place >= 0) & (place < size)).all(axis=1)
    place, edge = place[inside], edge[inside]
    along = (stop - start)[edge]
    length = np.einsum("ij,ij->i", along, along)
    share = np.einsum("ij,ij->i", place - start[edge], along) / np.where(length > 0, length, 1)
    share = np.clip(share, 0, 1)
    gap = place - start[edge] - along * share[:, None]
    near = np.abs(gap).max(axis=1) <= RING
    place, edge, share, gap = place[near], edge[near], share[near], gap[near]
    pixel = place[:, 1] * size + place[:, 0]
    by_distance = np.lexsort((np.einsum("ij,ij->i", gap, gap), pixel))
    pixel, first = np.unique(pixel[by_distance], return_index=True)
    chosen = by_distance[first]
    edge, share = edge[chosen], share[chosen]
    weights = np.zeros((len(edge), 3))
    rows = np.arange(len(edge))
    weights[rows, corner[edge]] = 1 - share
    weights[rows, following[edge]] = share
    return ChartTexels(pixel, face[edge], weights)
