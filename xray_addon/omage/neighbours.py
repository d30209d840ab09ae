"""Finds pairs of near points with a grid of cells."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def pairs_within(points: NDArray[np.floating], distance: float) -> tuple[Ints, Ints]:
    """All pairs of `points` (N, 3) at most `distance` apart, in both orders, by first index."""
    cell = np.floor((points - points.min(axis=0, initial=0.0)) / distance).astype(np.int64)
    size = cell.max(axis=0, initial=0) + 3
    key = _key(cell + 1, size)
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    found_first, found_second = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for offset in itertools.product((-1, 0, 1), repeat=3):
        other = _key(cell + 1 + np.array(offset), size)
        low = np.searchsorted(ordered, other, side="left")
        count = np.searchsorted(ordered, other, side="right") - low
        first = np.repeat(np.arange(len(points)), count)
        within = np.arange(len(first)) - np.repeat(np.cumsum(count) - count, count)
        second = order[np.repeat(low, count) + within]
        gap = points[first] - points[second]
        near = (np.einsum("ij,ij->i", gap, gap) <= distance**2) & (first != second)
        found_first.append(first[near])
        found_second.append(second[near])
    first, second = np.concatenate(found_first), np.concatenate(found_second)
    by_first = np.lexsort((second, first))
    return first[by_first], second[by_first]


def _key(cell: Ints, size: Ints) -> Ints:
    return (cell[:, 0] * size[1] + cell[:, 1]) * size[2] + cell[:, 2]
