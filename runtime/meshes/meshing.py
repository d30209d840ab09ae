"""The steps from a field to a coloured mesh, with their progress. Each of them can be cancelled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xray_addon.progress import Progress, ProgressCallback
from xray_addon.surface import Material, Surface

from .baking import bake
from .extraction import (
    MOST_CELLS,
    MOST_UNWRAPPED_CELLS,
    Sparse,
    fitting,
    sample_surface,
    strides_for,
)
from .smoothing import vertex_normals


class MeshProgress:
    """Reports that the surface is sought, that the mesh is made, and that it is coloured.

    Every method but `say` calls `progress`, which may raise `Cancelled`.
    """

    def __init__(self, progress: ProgressCallback) -> None:
        self._progress = progress
        self._now = Progress("mesh", 0, 0, "Seeking the surface")

    def alive(self) -> None:
        """Report the current step again."""
        self._progress(self._now)

    def seeking(self, step: int, of: int) -> None:
        """Report a step of `sample_surface` or `sample_distances`; two more follow the last."""
        self._now = replace(self._now, step=step, of=of + 2)
        self.alive()

    def say(self, message: str) -> None:
        """Change the message of the next reports."""
        self._now = replace(self._now, message=message)

    def making(self) -> None:
        """Report that the mesh is made."""
        self._now = replace(self._now, step=self._now.of - 2, message="Making the mesh")
        self.alive()

    def coloring(self, message: str = "Colouring the mesh") -> None:
        """Report that the mesh is coloured."""
        self._now = replace(self._now, step=self._now.of - 1, message=message)
        self.alive()

    def done(self) -> None:
        """Report the end."""
        self._now = replace(self._now, step=self._now.of, message="Done")
        self.alive()


def seek_surface(
    field_on: Callable[[int], Callable[[Tensor], Tensor]],
    resolution: int,
    level: float,
    planes: Tensor,
    progress: MeshProgress,
    *,
    unwrapped: bool,
) -> Sparse:
    """The values near `level` of a field that feature planes (..., N, N) describe.

    field_on : maps a number of points per side of a grid to `sample_surface`'s `evaluate` for it.
    resolution : points per side; fewer are used if the surface is `TooIntricate`. unwrapped :
    whether the mesh will be unwrapped, for which it must be smaller.
    """
    most = MOST_UNWRAPPED_CELLS if unwrapped else MOST_CELLS

    def sample(side: int) -> Sparse:
        strides = strides_for(side, planes.shape[-1])
        field = field_on(side)
        return sample_surface(field, side, level, planes.device, progress.seeking, most, strides)

    return fitting(sample, resolution, progress.say)


def colored_surface(
    vertices: NDArray[np.float32],
    faces: NDArray[np.integer],
    color_at: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    texture_size: int,
    progress: MeshProgress,
) -> Surface:
    """The mesh with smooth normals, and with colours at its corners or in a texture.

    color_at : maps points (N, 3) to colours (N, 3), 0..1. texture_size : px of the texture; 0 for
    colours at the corners.
    """
    normals = vertex_normals(vertices.astype(np.float64), faces).astype(np.float32)
    surface = Surface(vertices, faces, corner_normals=normals[faces])
    if texture_size:
        progress.coloring("Unwrapping the mesh and baking its texture")
        surface.corner_uvs, texture = bake(vertices, faces, color_at, texture_size)
        surface.materials = [Material(texture=texture)]
    else:
        progress.coloring()
        surface.corner_colors = color_at(vertices)[faces]
    progress.done()
    return surface
