"""Checks whether single precision, which Blender uses for meshes, is visible in pictures.

The larger single-precision numbers are, the farther apart they are: half a metre at map
coordinates. Far from the origin, a smooth surface turns into stairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import XRayError

if TYPE_CHECKING:
    from ..camera import Camera
    from ..surface import Surface

# Precision step, as a share of a pixel, above which noise in the normals may be visible.
VISIBLE_STEP = 0.1


def pixel_size(cameras: Sequence[Camera], surface: Surface) -> float:
    """The smallest width of a pixel at the centre of `surface`, in its units."""
    low, high = surface.bounds
    middle = (low + high) / 2
    return min(float(np.linalg.norm(middle - c.position)) / c.focal for c in cameras)


def precision(step: float, pixel: float) -> str:
    """A message that says how coarse the positions are. step, pixel : in the same units."""
    return (
        "It lies so far from the origin that its positions are rounded to "
        f"{step:.2g}, which is {step / pixel:.2g} pixels"
    )


def check_step(step: float, pixel: float) -> None:
    """Raise XRayError `far_from_origin` if positions are rounded to more than a pixel."""
    if step > pixel:
        raise XRayError(
            "far_from_origin",
            f"{precision(step, pixel)}.",
            "Move it to the origin in the program that it comes from, and export it again.",
        )
