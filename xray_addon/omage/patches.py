"""Patches: the connected parts of an omage, where touching corners connect too."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def label_patches(occupied: NDArray[np.bool_]) -> Ints:
    """The patch (R, R) of each pixel, from 1; 0 for none. Numbered as in the published code.

    Pixels are connected to their eight neighbours but, unlike in the mesh, not around the image's
    borders. The published numbers are the sorting order of the sizes, so they do not rank patches
    by size; they are kept for compatibility.
    """
    labels = connected(occupied)
    sizes = np.bincount(labels.ravel())[1:]
    renumbered = np.concatenate([[0], np.argsort(sizes)[::-1] + 1])
    return renumbered[labels]


def connected(occupied: NDArray[np.bool_]) -> Ints:
    """Labels (H, W) of the 8-connected components, from 1, in the order of their first pixels."""
    height, width = occupied.shape
    padded = np.zeros((height, width + 1), bool)
    padded[:, :width] = occupied
    flat = padded.ravel()
    # A row has few runs of pixels, and only overlaps with the next row matter.
    change = np.flatnonzero(np.diff(flat, prepend=False, append=False))
    start, stop = change[::2], change[1::2]
    row = start // (width + 1)
    first, second = _touching(start, stop, row, width + 1)
    root = components(len(start), first, second)
    _, number = np.unique(root, return_inverse=True)
    labels = np.zeros(len(flat), np.int64)
    labels[flat] = np.repeat(number + 1, stop - start)
    return labels.reshape(height, width + 1)[:, :width]


def _touching(start: Ints, stop: Ints, row: Ints, width: int) -> tuple[Ints, Ints]:
    """Pairs of runs in successive rows that touch, even if only at a corner."""
    low = np.searchsorted(stop, start + width, side="left")
    high = np.searchsorted(start, stop + width, side="right")
    count = np.maximum(high - low, 0)
    first = np.repeat(np.arange(len(start)), count)
    second = (
        np.repeat(low, count) + np.arange(len(first)) - np.repeat(np.cumsum(count) - count, count)
    )
    below = row[second] == row[first] + 1
    return first[below], second[below]


def components(count: int, first: Ints, second: Ints) -> Ints:
    """The lowest node in each node's component, for `count` nodes with edges (first, second)."""
    root = np.arange(count)
    while True:
        low = np.minimum(root[first], root[second])
        np.minimum.at(root, root[first], low)
        np.minimum.at(root, root[second], low)
        while not np.array_equal(jumped := root[root], root):
            root = jumped
        if np.array_equal(root[first], root[second]):
            return root
