"""Converts an omage to a `Surface` with its material."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..color import linear_to_srgb
from ..surface import Material, Surface
from .image import STITCH_PIXELS, OmageImage
from .meshing import OmageMesh

# Pixels by which textures extend beyond the patches, to hide seams.
MARGIN = 4


def decoded(omage: OmageImage, stitch: bool) -> Surface:
    """See `Omage.decode`."""
    mesh = omage.mesh()
    if stitch:
        mesh = mesh.stitched(2 * STITCH_PIXELS / omage.resolution, omage.patches)
    return Surface(
        mesh.vertices,
        mesh.faces,
        corner_normals=_normals(omage, mesh),
        corner_uvs=mesh.uvs,
        materials=[material(omage)] if omage.has_material else (),
    )


def material(omage: OmageImage) -> Material:
    """The omage's material channels as textures (row 0 at the top)."""
    occupied = omage.occupied
    values = np.concatenate(
        [linear_to_srgb(omage.albedo), omage.metallic[..., None], omage.roughness[..., None]],
        axis=2,
    )
    texels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    texels = _extended(texels, occupied)[::-1]
    return Material(
        texture=np.ascontiguousarray(texels[..., :3]),
        wrap="extend",
        metallic=1.0,
        roughness=1.0,
        metallic_texture=np.ascontiguousarray(texels[..., 3]),
        roughness_texture=np.ascontiguousarray(texels[..., 4]),
    )


def _normals(omage: OmageImage, mesh: OmageMesh) -> NDArray[np.float64] | None:
    """Unit normals (M, 3, 3) of the corners; None if the omage has none."""
    if not omage.has_material or not omage.channels(4, 7).any():
        return None
    normal = omage.normal.reshape(-1, 3)[mesh.pixels]
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return (normal / np.where(length > 0, length, 1))[mesh.faces]


def _extended(values: NDArray[np.uint8], occupied: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """`values` (R, R, C), extended beyond `occupied` (R, R) by `MARGIN` pixels."""
    values, filled = values * occupied[..., None], occupied.copy()
    for _ in range(MARGIN):
        known = filled.copy()
        for axis, shift in ((0, 1), (0, -1), (1, 1), (1, -1)):
            taken = np.roll(known, shift, axis) & ~filled
            values[taken] = np.roll(values, shift, axis)[taken]
            filled |= taken
    return values
