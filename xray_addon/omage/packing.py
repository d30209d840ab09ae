"""Packs charts into a square, without rotation, at the largest scale that fits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TRIES = 14  # bisections of the range of scales


def pack(sizes: Floats, cells: int, inset: float) -> tuple[float, Floats]:
    """One scale for all boxes (N, 2), and their lower left corners (N, 2) in 0 to 1.

    The square has `cells` x `cells` cells. Each box lies in cells of its own, at least `inset`
    inside. At least one cell stays free between boxes, and at the right and upper border, so that
    charts do not touch in an omage of `cells` pixels. The published code packs in the same way,
    with a margin of 0.02.

    Raises ValueError if not even boxes of size 0 fit.
    """
    order = np.lexsort((-sizes[:, 0], -sizes[:, 1]))
    low, high = 0.0, 1.0 / max(float(sizes.max()), 1e-12)
    best = _placed(sizes[order], low, cells, inset)
    if best is None:
        raise ValueError(f"{len(sizes)} charts do not fit {cells} x {cells} cells")
    for _ in range(TRIES):
        middle = (low + high) / 2
        found = _placed(sizes[order], middle, cells, inset)
        if found is None:
            high = middle
        else:
            low, best = middle, found
    places = np.empty((len(sizes), 2))
    places[order] = best / cells + inset
    return low, places


def _placed(sizes: Floats, scale: float, cells: int, inset: float) -> Ints | None:
    """First cells (N, 2) of the scaled boxes, each as low as possible; None if one does not fit."""
    extent = np.ceil((sizes * scale + 2 * inset) * cells - 1e-9).astype(np.int64) + 1
    extent = np.maximum(extent, 2)
    if (extent > cells).any() or extent.prod(axis=1).sum() > cells * cells:
        return None
    free = np.ones((cells, cells), bool)  # [row, column]
    places = np.empty((len(sizes), 2), np.int64)
    for number, (width, height) in enumerate(extent.tolist()):
        taken = np.zeros((cells + 1, cells + 1), np.int64)
        taken[1:, 1:] = (~free).cumsum(axis=0).cumsum(axis=1)
        inside = (
            taken[height:, width:]
            - taken[:-height, width:]
            - taken[height:, :-width]
            + taken[:-height, :-width]
        )
        fits = np.flatnonzero(inside == 0)
        if not len(fits):
            return None
        row, column = divmod(int(fits[0]), inside.shape[1])
        free[row : row + height, column : column + width] = False
        places[number] = column, row
    return places
