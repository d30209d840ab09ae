"""UV charts as what a camera above the UV plane sees, with the caster's exact coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..camera import Camera
from ..surface import Surface
from . import cast

if TYPE_CHECKING:
    from ..xray import XRay


def cast_uvs(uvs: NDArray[np.floating], size: int, layers: int) -> XRay:
    """Which triangles (`hit_face`) cover each texel of a square image, by their UVs (3M, 2)."""
    # The image as a pinhole camera sees a unit square one unit away.
    pose = np.eye(4)
    pose[:3, 3] = (0.5, 0.5, 1.0)
    camera = Camera(size, size, 2 * np.arctan(0.5), pose)
    flat = np.concatenate([uvs, np.zeros((len(uvs), 1))], axis=1)
    return cast(Surface(flat, np.arange(len(uvs)).reshape(-1, 3)), camera, layers, faces=True)
