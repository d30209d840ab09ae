"""What the ways of cutting out share: masks, alpha and its colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray


class NotCutError(Exception):
    """A method of cutting out does not serve for this image; its text says why."""


_SHARE = (0.001, 0.95)  # of the pixels: less is no object, more is no background


def pixel_scale(height: int, width: int) -> float:
    """The side of a pixel of the same image at 512 px, in px; at least 1."""
    return max(1.0, max(height, width) / 512)


def nearest_colors(
    rgb: NDArray[np.uint8], source: NDArray[np.bool_], at: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Colour (N, 3) of the pixel in `source` nearest to each of the N `at`, and its distance."""
    distance, (rows, columns) = ndimage.distance_transform_edt(~source, return_indices=True)
    return rgb[rows[at], columns[at]].astype(np.float32), distance[at].astype(np.float32)


def check_share(alpha: NDArray[np.float32]) -> None:
    """Refuses a cut-out that keeps next to nothing or next to everything."""
    share = float((alpha > 0.5).mean())
    if share < _SHARE[0]:
        raise NotCutError("it found no object in the image")
    if share > _SHARE[1]:
        raise NotCutError("it found no background in the image")


def with_alpha(rgb: NDArray[np.uint8], alpha: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(H, W, 4) of both, with the background's tint taken off the soft edge.

    A pixel of the edge shows some background; it takes the colour of the nearest solid pixel.
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
    """Connected pieces of `mask`: their numbers from 1, 0 outside (H, W), and their sizes in px.

    corners : whether pixels that touch only at a corner are connected.
    """
    labels: NDArray[np.int32]
    labels, count = ndimage.label(mask, np.ones((3, 3)) if corners else None)
    return labels, np.bincount(labels.ravel(), minlength=count + 1)[1:]
