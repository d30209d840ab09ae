"""How the parts of an object hang together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def outline_holes(mask: NDArray[np.bool_]) -> int:
    """How many holes the image of an object shows: the parts of the background that `mask` (H, W)
    encloses. An object in one piece has at least as many handles."""
    return int(ndimage.label(np.pad(~mask, 1, constant_values=True))[1]) - 1
