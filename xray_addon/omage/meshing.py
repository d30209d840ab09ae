"""The mesh of an omage: a vertex per pixel, two triangles per square of four pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .neighbours import pairs_within
from .patches import components

# Pixels of a patch that are at most this far apart are on the same side of a seam.
ALONG = 4

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class OmageMesh:
    """A mesh and the pixels that its vertices come from.

    vertices : (N, 3), -1 to 1. faces : (M, 3). uvs : (M, 3, 2) of the faces' corners, origin at
    the bottom left. pixels : (N,) flat index of each vertex's pixel.
    """

    vertices: Floats
    faces: Ints
    uvs: Floats
    pixels: Ints

    @classmethod
    def of(
        cls,
        occupied: NDArray[np.bool_],
        position: NDArray[np.floating],
        normal: NDArray[np.floating],
    ) -> OmageMesh:
        """The mesh, with faces in the published order and facing as the normals do.

        occupied (R, R); position and normal (R, R, 3) from -1 to 1. Neighbours wrap around the
        image's borders, as published. A face is flipped if it faces away from the normal of its
        first vertex. There may be no faces.
        """
        faces = grid_faces(occupied)
        points, normals = position.reshape(-1, 3), normal.reshape(-1, 3)
        first, second, third = (points[faces[:, corner]] for corner in range(3))
        facing = np.einsum(
            "ij,ij->i", np.cross(second - first, third - first), normals[faces[:, 0]]
        )
        away = facing < 0
        faces[away] = faces[away][:, [0, 2, 1]]
        pixels, inverse = np.unique(faces, return_inverse=True)
        size = occupied.shape[0]
        steps = max(size - 1, 1)
        uv = np.stack([pixels % size / steps, pixels // size / steps], axis=1)
        faces = inverse.reshape(-1, 3)
        return cls(points[pixels], faces, uv[faces], pixels)

    def stitched(self, distance: float, patches: Ints) -> OmageMesh:
        """The mesh with closed seams: open-edge vertices are merged with the nearest one across.

        distance : the largest gap that is closed, in the mesh's units. patches : (R, R) from
        `label_patches`. Vertices of the same patch are only merged if their pixels are far apart,
        so that a border does not fold up; the published code merges all near vertices. Merged
        vertices move to their mean. Degenerate faces are removed.
        """
        border = _open_vertices(self.faces)
        first, second = pairs_within(self.vertices[border], distance)
        pixels = self.pixels[border]
        row, column = np.divmod(pixels, patches.shape[1])
        apart = np.maximum(np.abs(row[first] - row[second]), np.abs(column[first] - column[second]))
        patch = patches.ravel()[pixels]
        across = (patch[first] != patch[second]) | (apart > ALONG)
        first, second = first[across], second[across]
        gap = np.linalg.norm(self.vertices[border[first]] - self.vertices[border[second]], axis=1)
        nearest_first = np.lexsort((gap, first))
        first, second = first[nearest_first], second[nearest_first]
        first, number = np.unique(first, return_index=True)
        merged = np.arange(len(self.vertices))
        merged[border] = border[components(len(border), first, second[number])]
        count = np.bincount(merged, minlength=len(merged))
        sums = [np.bincount(merged, axis, minlength=len(merged)) for axis in self.vertices.T]
        vertices = np.stack(sums, axis=1) / np.maximum(count, 1)[:, None]
        faces = merged[self.faces]
        whole = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
        kept, inverse = np.unique(faces[whole], return_inverse=True)
        return replace(
            self,
            vertices=vertices[kept],
            faces=inverse.reshape(-1, 3),
            uvs=self.uvs[whole],
            pixels=self.pixels[kept],
        )


def grid_faces(occupied: NDArray[np.bool_]) -> Ints:
    """Flat pixel indices (M, 3) of faces: the lower triangles row by row, then the upper ones."""
    index = np.arange(occupied.size).reshape(occupied.shape)
    halves = []
    for shift in (-1, 1):
        present = occupied & np.roll(occupied, shift, axis=0) & np.roll(occupied, shift, axis=1)
        corners = index, np.roll(index, shift, axis=1), np.roll(index, shift, axis=0)
        halves.append(np.stack([corner[present] for corner in corners], axis=1))
    return np.concatenate(halves)


def _open_vertices(faces: Ints) -> Ints:
    """The vertices on edges of only one face, ascending."""
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    vertices = int(faces.max(initial=0)) + 1
    edge, count = np.unique(edges[:, 0] * vertices + edges[:, 1], return_counts=True)
    return np.unique(np.stack(divmod(edge[count == 1], vertices)))
