"""Reads image files into arrays, and shows arrays in Blender's Image Editor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np
from numpy.typing import NDArray

from ...xray_addon.errors import XRayError
from .staging import TemporaryData

if TYPE_CHECKING:
    pass


IMAGE_NAME = "X-Ray Preview"


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file: (h, w, 4) uint8 with straight alpha, row 0 at the top.

    Raises XRayError `unreadable_image`.
    """
    with TemporaryData() as read:
        try:
            image: Any = read.own(bpy.data.images.load(str(path)))
            width, height = image.size
        except RuntimeError:
            width = height = 0
        if not width or not height or image.channels != 4:
            raise XRayError(
                "unreadable_image", f"{path} cannot be read as an image.", "Make the item again."
            )
        pixels = np.empty(width * height * 4, dtype=np.float32)
        image.pixels.foreach_get(pixels)
    rows = pixels.reshape(height, width, 4)[::-1]
    return np.rint(np.clip(rows, 0.0, 1.0) * 255.0).astype(np.uint8)


# In Blender


def show(picture: NDArray[np.uint8], name: str = IMAGE_NAME) -> bpy.types.Image:
    """Show `picture` (H, W, 3) as the Blender image `name` in every open Image Editor."""
    height, width = picture.shape[:2]
    images: Any = bpy.data.images
    image: Any = images.get(name)
    if image is None or not image.has_data or image.is_float:
        image = images.new(name, width, height)
    if tuple(image.size) != (width, height):
        image.scale(width, height)
    rgba = np.ones((height, width, 4), dtype=np.float32)
    rgba[..., :3] = picture[::-1].astype(np.float32) / 255.0
    image.pixels.foreach_set(rgba.reshape(-1))
    image.update()
    image.pack()
    for area in image_editors():
        area.spaces.active.image = image
        area.tag_redraw()
    return image


def image_editors() -> Sequence[Any]:
    """The open Image Editors."""
    manager: Any = bpy.context.window_manager
    return [
        area
        for window in (manager.windows if manager else ())
        for area in window.screen.areas
        if area.type == "IMAGE_EDITOR"
    ]
