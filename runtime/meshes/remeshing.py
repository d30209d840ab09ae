"""Even triangles: coarsens a closed mesh until its edges have about the same length.

The steps are those of isotropic remeshing (Botsch and Kobbelt, "A remeshing approach to
multiresolution modeling", SGP 2004): collapse short edges; flip edges if that evens out the number
of edges per vertex; move vertices to the middle of their neighbours, within the surface. Sets of
edges that do not touch each other are processed at once. Edges are not split: the input is finer
than the output.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .smoothing import neighbour_mean, vertex_normals

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Edges shorter than this share of the target length collapse (Botsch and Kobbelt).
SHORT = 0.8
MOST_ROUNDS = 40
# A step is not taken if the cosine between a face's old and new normal is below this.
LEAST_COSINE = 0.5
RELAXATIONS = 3


def remesh(vertices: Floats, faces: Ints, length: float) -> tuple[Floats, Ints]:
    """Vertices (N, 3) and faces (F, 3) with edges of about `length` and the same topology.

    vertices, faces : a closed mesh with shorter edges.
    """
    vertices = vertices.astype(np.float64)
    random = np.random.default_rng(0)
    for _ in range(MOST_ROUNDS):
        before = len(faces)
        vertices, faces = _collapse(vertices, faces, SHORT * length, random)
        if len(faces) > 0.99 * before:
            break
    for _ in range(RELAXATIONS):
        faces = _flip(vertices, faces)
        vertices = _relax(vertices, faces)
    return compacted(vertices, faces)


def compacted(vertices: Floats, faces: Ints) -> tuple[Floats, Ints]:
    """Remove the vertices that no face uses."""
    used = np.zeros(len(vertices), bool)
    used[faces] = True
    return vertices[used], (np.cumsum(used) - 1)[faces]


def _edges(faces: Ints, count: int) -> tuple[Ints, Ints, Ints]:
    """Edges (E, 2) of a closed mesh, lower vertex first; for each its two faces (E, 2) and the
    corners (E, 2) of these opposite to it."""
    low = np.minimum(faces, np.roll(faces, -1, axis=1))
    high = np.maximum(faces, np.roll(faces, -1, axis=1))
    order = np.argsort((low * count + high).ravel(), kind="stable")
    first, second = order[0::2], order[1::2]
    ends = np.stack([low.ravel()[first], high.ravel()[first]], axis=1)
    opposite = np.roll(faces, -2, axis=1).ravel()
    halves = np.stack([first, second], axis=1)
    return ends, halves // 3, opposite[halves]


def _face_normals(vertices: Floats, faces: Ints) -> Floats:
    """Unit normals (F, 3), 0 for faces without area."""
    a, b, c = vertices[faces[:, 0]], vertices[faces[:, 1]], vertices[faces[:, 2]]
    normal = np.cross(b - a, c - a)
    return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)


def _collapse(
    vertices: Floats, faces: Ints, shortest: float, random: np.random.Generator
) -> tuple[Floats, Ints]:
    """Collapse edges below `shortest` to their middles, as many as do not touch each other."""
    count = len(vertices)
    ends, _, _ = _edges(faces, count)
    length = np.linalg.norm(vertices[ends[:, 0]] - vertices[ends[:, 1]], axis=1)
    short = length < shortest
    # An edge collapses if it is the shortest around its two ends. Lengths are randomised, because
    # among edges of similar length few would be the shortest.
    mixed = np.where(short, length * random.uniform(0.7, 1.3, len(length)), np.inf)
    rank = np.empty(len(ends), np.int64)
    rank[np.argsort(mixed)] = np.arange(len(ends))
    rank[~short] = len(ends)
    around = np.full(count, len(rank))
    np.minimum.at(around, ends[:, 0], rank)
    np.minimum.at(around, ends[:, 1], rank)
    wider = around.copy()
    np.minimum.at(wider, ends[:, 0], around[ends[:, 1]])
    np.minimum.at(wider, ends[:, 1], around[ends[:, 0]])
    chosen = np.flatnonzero(short & (rank == wider[ends].min(axis=1)))
    # The ends must have exactly two common neighbours, or the mesh would touch itself.
    links = _links(ends, count)
    a, b = ends[chosen].T
    common = links[a].multiply(links[b]).sum(axis=1).A1 if len(chosen) else np.zeros(0)
    a, b = a[common == 2], b[common == 2]
    middle = (vertices[a] + vertices[b]) / 2
    target = np.arange(count)
    target[b] = a
    moved = vertices.copy()
    moved[a], moved[b] = middle, middle
    # No adjacent face may turn over.
    old = _face_normals(vertices, faces)
    new = _face_normals(moved, faces)
    merged = target[faces]
    stays = (merged != np.roll(merged, 1, axis=1)).all(axis=1)
    turned = stays & ((old * new).sum(axis=1) < LEAST_COSINE)
    bad = np.zeros(count, bool)
    bad[faces[turned]] = True
    refused = bad[a] | bad[b]
    a, b = a[refused], b[refused]
    moved[a], moved[b] = vertices[a], vertices[b]
    target[b] = b
    merged = target[faces]
    stays = (merged != np.roll(merged, 1, axis=1)).all(axis=1)
    return moved, merged[stays]


def _links(ends: Ints, count: int) -> sparse.csr_matrix:
    """The symmetric matrix (count, count) with a 1 for each edge."""
    rows, columns = np.concatenate([ends, ends[:, ::-1]]).T
    return sparse.csr_matrix((np.ones(len(rows), np.int32), (rows, columns)), (count, count))


def _flip(vertices: Floats, faces: Ints) -> Ints:
    """Flip edges within their two faces if more vertices then have six edges."""
    count = len(vertices)
    ends, sides, opposite = _edges(faces, count)
    valence = np.bincount(ends.ravel(), minlength=count)
    now = np.abs(valence[ends] - 6).sum(axis=1) + np.abs(valence[opposite] - 6).sum(axis=1)
    then = np.abs(valence[ends] - 7).sum(axis=1) + np.abs(valence[opposite] - 5).sum(axis=1)
    gain = now - then
    wanted = np.flatnonzero((gain > 0) & (opposite[:, 0] != opposite[:, 1]))
    # Best first. No other edge of the faces around its corners may flip.
    wanted = wanted[np.argsort(-gain[wanted], kind="stable")]
    order = np.arange(len(wanted))
    first = np.full(count, len(wanted))
    corners = np.concatenate([ends[wanted], opposite[wanted]], axis=1)
    np.minimum.at(first, corners.ravel(), order.repeat(4))
    chosen = wanted[(first[corners] == order[:, None]).all(axis=1)]
    links = _links(ends, count)
    c, d = opposite[chosen].T
    linked = np.asarray(links[c, d]).ravel() if len(chosen) else np.zeros(0)
    chosen = chosen[linked == 0]
    # The half edge a to b is in the first face, so the new faces are (a, d, c) and (b, c, d).
    face = faces[sides[chosen, 0]]
    c, d = opposite[chosen].T
    at = (face == c[:, None]).argmax(axis=1)
    a = face[np.arange(len(face)), (at + 1) % 3]
    b = face[np.arange(len(face)), (at + 2) % 3]
    one, two = np.stack([a, d, c], axis=1), np.stack([b, c, d], axis=1)
    normal = _face_normals(vertices, faces)
    least = np.full(len(chosen), np.inf)
    for new in (one, two):
        for side in (0, 1):
            cosine = (_face_normals(vertices, new) * normal[sides[chosen, side]]).sum(axis=1)
            least = np.minimum(least, cosine)
    good = least > 0.8
    result = faces.copy()
    result[sides[chosen[good], 0]] = one[good]
    result[sides[chosen[good], 1]] = two[good]
    return result


def _relax(vertices: Floats, faces: Ints) -> Floats:
    """Vertices moved half-way to the middle of their neighbours, within the surface."""
    step = (neighbour_mean(faces, len(vertices)) @ vertices - vertices) / 2
    normal = vertex_normals(vertices, faces)
    return vertices + step - (step * normal).sum(axis=1, keepdims=True) * normal
