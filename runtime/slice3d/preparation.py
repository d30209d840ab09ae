"""Converts a cut-out to pictures like those in Slice3D's training."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from xray_addon.errors import XRayError

BACKGROUNDS = ("black", "white")


def on_background(rgba: NDArray[np.uint8], background: str) -> NDArray[np.uint8]:
    """(H, W, 3) of a picture (H, W, 4), straight alpha, on "black" or "white", as published.

    On white only fully transparent pixels change; on black the edge is blended.
    """
    if background == "white":
        return np.where(rgba[..., 3:] == 0, np.uint8(255), rgba[..., :3])
    if background != "black":
        raise ValueError(f"background must be one of {BACKGROUNDS}, got {background!r}")
    return (rgba[..., :3] * (rgba[..., 3:] / 255.0)).astype(np.uint8)


def centred(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 4) with the box around all pixels that are not fully transparent in the middle, as
    published.

    Raises XRayError `no_object` if everything is transparent.
    """
    height, width = rgba.shape[:2]
    rows, columns = np.nonzero(rgba[..., 3])
    if not len(rows):
        raise XRayError(
            "no_object",
            "There is no object in the image: all of it is transparent.",
            "Choose an image that shows one object, or another way to remove the background.",
        )
    top, left = rows.min(), columns.min()
    cropped = rgba[top : rows.max() + 1, left : columns.max() + 1]
    moved = np.zeros_like(rgba)
    top, left = (height - cropped.shape[0]) // 2, (width - cropped.shape[1]) // 2
    moved[top : top + cropped.shape[0], left : left + cropped.shape[1]] = cropped
    return moved


def resized(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(size, size, 3) of a picture (H, W, 3), bilinear, averaging when it reduces."""
    if picture.shape[:2] == (size, size):
        return picture
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR))


def to_tensor(picture: NDArray[np.uint8]) -> Tensor:
    """(..., 3, H, W) in -1..1 of pictures (..., H, W, 3)."""
    values = torch.tensor(picture, dtype=torch.float32).movedim(-1, -3)
    return (values / 255 - 0.5) / 0.5


def to_picture(values: Tensor) -> NDArray[np.uint8]:
    """(..., H, W, 3) of tensors (..., 3, H, W) in -1..1, converted as in the published code."""
    scaled = (values.detach().float().clamp(-1, 1) + 1) * 127.5
    return scaled.movedim(-3, -1).to(torch.uint8).cpu().numpy()


def network_image(rgba: NDArray[np.uint8], size: int, background: str) -> Tensor:
    """(3, size, size) in -1..1: the network's input for a picture (H, W, 4), straight alpha."""
    return to_tensor(resized(on_background(rgba, background), size))
