"""Distances between point sets, as the 3D generation literature defines them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .xray import XRay

_BLOCK = 1 << 22  # distances in memory at once


def nearest_distances(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Distance (N,) from each point of `a` (N, 3) to the nearest of `b` (M, 3).

    Exact; computes all pairs in blocks. Raises ValueError for empty or non-finite points.
    """
    points, others = _points("a", a), _points("b", b)
    centre = others.mean(axis=0)
    points, others = points - centre, others - centre
    squared = np.einsum("ij,ij->i", others, others)
    nearest = np.empty(len(points), dtype=np.intp)
    step = max(1, _BLOCK // len(others))
    for start in range(0, len(points), step):
        block = squared - 2 * (points[start : start + step] @ others.T)
        nearest[start : start + step] = block.argmin(axis=1)
    # The expansion above loses digits for near pairs, so the final distance is computed directly.
    return np.linalg.norm(points - others[nearest], axis=1)


def chamfer_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Half the sum of the two mean unsquared nearest distances between points (N, 3), (M, 3)."""
    return 0.5 * float(nearest_distances(a, b).mean() + nearest_distances(b, a).mean())


def f_score(a: ArrayLike, b: ArrayLike, threshold: float) -> float:
    """Harmonic mean of precision and recall (Knapitsch et al. 2017), 0..1.

    Precision is the share of `a` (N, 3) nearer than `threshold` to `b` (M, 3), recall the
    reverse.
    """
    precision = float((nearest_distances(a, b) < threshold).mean())
    recall = float((nearest_distances(b, a) < threshold).mean())
    total = precision + recall
    return 2 * precision * recall / total if total > 0 else 0.0


def _points(name: str, points: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 3 or not len(array) or not np.isfinite(array).all():
        raise ValueError(f"{name} must be one or more finite points (N, 3), got {array.shape}")
    return array


def _sums(values: NDArray[np.int32], starts: NDArray[np.intp]) -> NDArray[np.int32]:
    """Sums of the rows from each of `starts` to the next; the last is the number of rows."""
    size = int(starts[1])
    if (np.diff(starts) != size).any():
        return np.add.reduceat(values, starts[:-1], axis=0)
    total = values[::size].copy()
    for row in range(1, size):
        total += values[row::size]
    return total


def silhouette_iou(alpha: NDArray[np.uint8], xray: XRay) -> float:
    """Intersection over union of an image's alpha (h, w) and the first layer; 1 if both are empty.

    A pixel of the X-Ray counts as covered if the image covers more than half of it.
    """
    _, height, width = xray.shape
    rows = (np.arange(height + 1) * alpha.shape[0]) // height
    columns = (np.arange(width + 1) * alpha.shape[1]) // width
    if alpha.shape[0] >= height and alpha.shape[1] >= width:
        sums = _sums(_sums(alpha.astype(np.int32), rows).T, columns).T
        area = np.diff(rows)[:, None] * np.diff(columns)[None, :]
        seen = 2 * sums > 255 * area
    else:
        seen = alpha[np.ix_(rows[:-1], columns[:-1])] > 127
    hit = np.zeros(height * width, dtype=bool)
    hit[xray.index[xray.index < height * width]] = True
    hit = hit.reshape(height, width)
    union = (seen | hit).sum()
    return float((seen & hit).sum() / union) if union else 1.0
