"""Frames a cut-out on grey as in TripoSR's training, by the published rule."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xray_addon.errors import XRayError
from xray_addon.systems.triposr import FRAME

FOREGROUND = FRAME.fill
GREY = 0.5


def prepare(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The object centred in a square, on grey: (S, S, 3) from a cut-out (H, W, 4), straight alpha.

    The object's longer side spans `FOREGROUND` of the square's side. The picture keeps the object's
    size in pixels; the network resizes it.

    Raises XRayError `no_object` if everything is transparent, or all but a line of one pixel.
    """
    rows, columns = np.nonzero(rgba[..., 3])
    if not len(rows):
        raise XRayError(
            "no_object",
            "There is no object in the image: everything is transparent.",
            "Choose an image that shows one object, or another way to remove the background.",
        )
    if np.ptp(rows) == 0 or np.ptp(columns) == 0:
        raise XRayError(
            "no_object",
            "The object in the image is a line, only one pixel thick.",
            "Choose an image that shows the object larger.",
        )
    # The published code leaves out the last row and column.
    cropped = rgba[rows.min() : rows.max(), columns.min() : columns.max()]
    cropped = _centred(cropped, max(cropped.shape[:2]))
    cropped = _centred(cropped, int(len(cropped) / FOREGROUND))
    values = cropped.astype(np.float32) / 255.0
    color, alpha = values[..., :3], values[..., 3:]
    return ((color * alpha + (1 - alpha) * GREY) * 255.0).astype(np.uint8)


def _centred(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The image in the middle of a transparent square of `size` px."""
    pads = []
    for count in image.shape[:2]:
        before = (size - count) // 2
        pads.append((before, size - count - before))
    return np.pad(image, (*pads, (0, 0)))
