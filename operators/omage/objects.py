"""Makes objects from omages."""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np

from ...xray_addon.omage import Omage
from ...xray_addon.surface import Surface
from ..convert import add_object, mesh_from_surface

PATCH_ATTRIBUTE = "patch"
# The name of a mesh's face sets in Sculpt Mode.
FACE_SETS = ".sculpt_face_set"


def add_omage(
    omage: Omage, name: str, collection: bpy.types.Collection, *, stitch: bool = False
) -> bpy.types.Object:
    """An object of `omage` in `collection`, with UVs, material, and its patches as face sets.

    Raises XRayError `empty_omage`.
    """
    surface = omage.decode(stitch=stitch)
    mesh: Any = mesh_from_surface(surface, name)
    patches = _face_patches(omage, surface)
    # The mesh lacks faces that Blender does not allow.
    if len(patches) == len(mesh.polygons):
        for attribute in (PATCH_ATTRIBUTE, FACE_SETS):
            made = mesh.attributes.new(attribute, "INT", "FACE")
            made.data.foreach_set("value", patches)
    return add_object(mesh, collection, name)


def _face_patches(omage: Omage, surface: Surface) -> Any:
    """(M,) the patch of each face, from the pixel of its first corner."""
    assert surface.corner_uvs is not None
    pixel = np.rint(surface.corner_uvs[:, 0] * (omage.resolution - 1)).astype(np.int64)
    return omage.patches[pixel[:, 1], pixel[:, 0]].astype(np.int32)
