"""The topology of meshes and of their outlines: loose parts, handles, holes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components

from xray_addon.surface import Surface

# Vertices closer than this share of the longest side are merged: files split them at seams.
WELD = 1e-5


@dataclass(frozen=True)
class Topology:
    """islands : connected parts beyond the first. handles : sum of the genus of all parts."""

    islands: int
    handles: int


def topology(surface: Surface) -> Topology:
    """The topology after merging vertices in the same place and filling borders.

    By Euler's formula: V - E + F = 2 (parts - handles) - borders. If more than two faces share an
    edge, the genus is not defined, and the result is a guess of at least 0.
    """
    faces, count = _welded(surface)
    if not len(faces):
        return Topology(0, 0)
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    edges, uses = np.unique(edges, axis=0, return_counts=True)
    _, label = parts(edges, count)
    used = np.unique(faces)
    borders = 0
    if len(rim := edges[uses == 1]):
        rings, _ = parts(rim, count)
        borders = rings - (count - len(np.unique(rim)))
    euler = len(used) - len(edges) + len(faces)
    bodies = len(np.unique(label[used]))
    return Topology(bodies - 1, max(0, (2 * bodies - borders - euler + 1) // 2))


def _welded(surface: Surface) -> tuple[NDArray[np.int64], int]:
    """Faces after merging vertices in the same place, without degenerate ones, and the number of
    vertices."""
    low, high = surface.bounds
    step = max(float((high - low).max()) * WELD, 1e-30)
    places = np.rint((surface.vertices - low) / step).astype(np.int64)
    _, weld = np.unique(places, axis=0, return_inverse=True)
    faces = weld.reshape(-1)[surface.faces]
    whole = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    return faces[whole], int(weld.max()) + 1


def parts(edges: NDArray[np.integer], count: int) -> tuple[int, NDArray[np.int32]]:
    """The number of connected parts of `count` vertices, and the part of each vertex.

    edges : (E, 2), in any order, also repeated.
    """
    links = sparse.coo_matrix((np.ones(len(edges), np.bool_), tuple(edges.T)), (count, count))
    found: tuple[int, NDArray[np.int32]] = connected_components(links, directed=False)
    return found


def outline_holes(mask: NDArray[np.bool_]) -> int:
    """The number of holes in the image of an object: parts of the background enclosed by `mask`
    (H, W). An object in one piece has at least as many handles."""
    return int(ndimage.label(np.pad(~mask, 1, constant_values=True))[1]) - 1
