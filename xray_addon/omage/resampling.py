"""Changes the resolution of an omage."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

OCCUPIED = 0.5  # a pixel with a higher occupancy contains a point
OCCUPANCY = 3  # channel of the occupancy

Floats = NDArray[np.floating]


def downsample(values: Floats, factor: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Values (R, R, C) reduced by `factor` with borders snapped, and which pixels were snapped.

    As published: a block with border pixels of a patch becomes the mean of only these, so that the
    patch keeps its outline. Other blocks become their central pixel.
    """
    border = border_pixels(values[..., OCCUPANCY] >= OCCUPIED)
    size = values.shape[0] // factor
    blocks = border.reshape(size, factor, size, factor)
    count = blocks.sum(axis=(1, 3))
    snapped = count > 0
    small = values[factor // 2 :: factor, factor // 2 :: factor].copy()
    # Border pixels are few, so only they are summed.
    row, column = np.nonzero(border)
    block = row // factor * size + column // factor
    mean = np.stack(
        [
            np.bincount(block, values[row, column, channel], minlength=size * size)
            for channel in range(values.shape[2])
        ],
        axis=1,
    ).reshape(size, size, -1)
    small[snapped] = mean[snapped] / count[snapped][:, None]
    return small, snapped


def border_pixels(occupied: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Occupied pixels (H, W) with one of eight neighbours unoccupied or outside the image."""
    padded = np.pad(occupied, 1)
    rows = padded[:-2] & padded[1:-1] & padded[2:]
    return occupied & ~(rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:])


def resample(values: Floats, size: int) -> Floats:
    """Values (R, R, C) at size x size: occupied where the nearest pixel is, with blended values.

    Only occupied pixels are blended, so nothing bleeds in from outside a patch.
    """
    occupied = values[..., OCCUPANCY] > OCCUPIED
    weighted = np.where(occupied[..., None], values, 0.0)
    place = (np.arange(size) + 0.5) * (values.shape[0] / size) - 0.5
    blended, weight = weighted, occupied.astype(np.float64)
    for axis in (0, 1):
        blended, weight = _lerp(blended, place, axis), _lerp(weight, place, axis)
    nearest = np.clip(np.floor(place + 0.5).astype(np.int64), 0, values.shape[0] - 1)
    kept = occupied[nearest][:, nearest]
    result = np.zeros((size, size, values.shape[2]), values.dtype)
    result[kept] = blended[kept] / weight[kept][:, None]
    return result


def _lerp(values: Floats, place: Floats, axis: int) -> Floats:
    below = np.clip(np.floor(place).astype(np.int64), 0, values.shape[axis] - 1)
    above = np.minimum(below + 1, values.shape[axis] - 1)
    share = np.clip(place - below, 0, 1).reshape(
        [-1 if number == axis else 1 for number in range(values.ndim)]
    )
    low, high = values.take(below, axis), values.take(above, axis)
    return low + (high - low) * share
