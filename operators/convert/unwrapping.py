"""Makes a UV map for a `Surface` with Blender's Smart UV Project."""

from __future__ import annotations

import bpy
import numpy as np
from numpy.typing import NDArray

from ...xray_addon.surface import Surface
from .baking import loop_uvs, unwrap
from .staging import Stage


def unwrap_surface(surface: Surface) -> NDArray[np.float64]:
    """UVs (M, 3, 2), 0..1, of the faces of `surface`; vertices at the same place are joined.

    Raises XRayError `cannot_bake`.
    """
    vertices, index = np.unique(surface.vertices.astype(np.float32), axis=0, return_inverse=True)
    corners = index.reshape(-1)[surface.faces]
    mesh = bpy.data.meshes.new("unwrapped")
    mesh.vertices.add(len(vertices))
    mesh.vertices.foreach_set("co", vertices.reshape(-1))
    mesh.loops.add(corners.size)
    mesh.loops.foreach_set("vertex_index", corners.reshape(-1).astype(np.int32))
    mesh.polygons.add(len(corners))
    mesh.polygons.foreach_set("loop_start", np.arange(0, corners.size, 3, dtype=np.int32))
    mesh.update(calc_edges=True)
    with Stage() as stage:
        copy = stage.add(mesh)
        name = unwrap(stage, copy, np.ones(len(corners), dtype=bool))
        return loop_uvs(copy.data, name).reshape(-1, 3, 2).astype(np.float64)
