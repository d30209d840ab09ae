"""Functions shared by the cut-out methods: masks, alpha and colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray


class NotCutError(Exception):
    """A cut-out method failed for this image; the message says why."""


_SHARE = (0.001, 0.95)  # of the pixels: fewer are not an object, more leave no background


def pixel_scale(height: int, width: int) -> float:
    """The size in px of a pixel of the image scaled to 512 px; at least 1."""
    return max(1.0, max(height, width) / 512)


def nearest_colors(
    rgb: NDArray[np.uint8], source: NDArray[np.bool_], at: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """For N pixels `at`: colour (N, 3) of the nearest pixel in `source`, and its distance."""
    distance, (rows, columns) = ndimage.distance_transform_edt(~source, return_indices=True)
    return rgb[rows[at], columns[at]].astype(np.float32), distance[at].astype(np.float32)


def check_share(alpha: NDArray[np.float32]) -> None:
    """Reject a cut-out that keeps almost nothing or almost everything."""
    share = float((alpha > 0.5).mean())
    if share < _SHARE[0]:
        raise NotCutError("it found no object in the image")
    if share > _SHARE[1]:
        raise NotCutError("it found no background in the image")


def with_alpha(rgb: NDArray[np.uint8], alpha: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Combine both to (H, W, 4), and remove the background's tint from the soft edge.

    Edge pixels show some background, so they take the colour of the nearest solid pixel.
    """
    rgba = np.dstack([rgb, np.rint(alpha * 255.0).astype(np.uint8)])
    solid, soft = alpha > 0.98, (alpha > 0.0) & (alpha <= 0.98)
    if solid.any() and soft.any():
        color, distance = nearest_colors(rgb, solid, soft)
        close = distance[:, None] <= 8 * pixel_scale(*alpha.shape)
        rgba[soft, :3] = np.where(close, color, rgba[soft, :3])
    rgba[rgba[..., 3] == 0] = 0
    return rgba


def labelled_pieces(
    mask: NDArray[np.bool_], *, corners: bool = False
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Connected pieces of `mask`: labels (H, W) from 1, with 0 outside, and sizes in px.

    corners : whether pixels that touch only at a corner are connected.
    """
    labels: NDArray[np.int32]
    labels, count = ndimage.label(mask, np.ones((3, 3)) if corners else None)
    return labels, np.bincount(labels.ravel(), minlength=count + 1)[1:]
