"""k-d trees that are safe in the runtime, where torch flushes denormals to 0."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree


def tree(points: NDArray[np.floating[Any]]) -> KDTree:
    """The k-d tree of `points` (N, D).

    To balance a node half of whose points are exactly at 0, SciPy needs the smallest number above
    0. Where denormals are flushed, that is 0 again, and SciPy would recurse until the process dies.
    """
    return KDTree(points, balanced_tree=False)
