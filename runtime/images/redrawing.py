"""Masks of the part of an image to redraw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from xray_addon.errors import XRayError

from .reading import read_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OPAQUE = 128  # alpha of a mask's pixels; a mask with lower alpha anywhere is read from its alpha


def read_mask(mask: Any, width: int, height: int) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """The pixels (H, W) to redraw in an image of `width` x `height` px, and the mask's own size.

    mask : as for `read_image`. If it has transparent pixels, the opaque ones are redrawn, otherwise
        the white ones (brighter than middle grey). A mask of another size is resampled to the
        image's.

    Raises what `read_image` raises, and XRayError `bad_mask` if the mask selects no pixel or every
    pixel.
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
