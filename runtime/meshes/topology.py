"""The topology of an object's image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def outline_holes(mask: NDArray[np.bool_]) -> int:
    """The number of background regions that `mask` (H, W) encloses. An object in one piece has at
    least this many handles."""
    return int(ndimage.label(np.pad(~mask, 1, constant_values=True))[1]) - 1
