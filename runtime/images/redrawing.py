"""Masks that say which part of an image is redrawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from xray_addon.errors import XRayError

from .reading import read_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OPAQUE = 128  # alpha of a mask's pixels; a mask with less somewhere is drawn with its alpha


def read_mask(mask: Any, width: int, height: int) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """Where an image of `width` x `height` px is redrawn (H, W), and the mask's own size.

    mask : as `read_image` takes it. If it has transparent pixels, what is opaque is redrawn;
        otherwise what is white, that is, brighter than middle grey. A mask of another size is
        resampled to the image's.

    Raises what `read_image` raises, and XRayError `bad_mask` for a mask that chooses no pixel or
    every pixel.
    """
    read = read_image(mask)
    grey = read.convert("L")
    if read.mode == "RGBA" and np.asarray(read)[..., 3].min() < _OPAQUE:
        grey = read.getchannel("A")
    if grey.size != (width, height):
        grey = grey.resize((width, height), Image.Resampling.BOX)
    redrawn = np.asarray(grey) >= _OPAQUE
    if not redrawn.any():
        raise XRayError(
            "bad_mask",
            "The mask is empty: it chooses no part of the image.",
            "Paint white, or on a transparent mask anything, where the image is to be redrawn; "
            "or remove the mask.",
        )
    if redrawn.all():
        raise XRayError(
            "bad_mask",
            "The mask covers the whole image, so that nothing of it would be kept.",
            "Leave something out of the mask, or generate without an image.",
        )
    return redrawn, read.size
