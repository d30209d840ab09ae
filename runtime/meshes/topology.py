"""The topology of an object as seen in an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def outline_holes(mask: NDArray[np.bool_]) -> int:
    """The number of holes in the image of an object: parts of the background enclosed by `mask`
    (H, W). An object in one piece has at least as many handles."""
    return int(ndimage.label(np.pad(~mask, 1, constant_values=True))[1]) - 1
