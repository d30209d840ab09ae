"""Images between files, arrays and Blender's Image Editor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from numpy.typing import NDArray

from ...xray_addon.errors import XRayError
from ...xray_addon.files.png import write_png
from ...xray_addon.files.signatures import first_bytes, unread_image
from .materials import texture_from_image
from .staging import TemporaryData

# Formats of byte images that Blender and the runtime read alike.
_SHARED_FORMATS = frozenset(
    {"BMP", "JPEG", "JPEG2000", "PNG", "TARGA", "TARGA_RAW", "TIFF", "WEBP"}
)
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


def image_file(image: str | Path | bpy.types.Image, copy: Path) -> Path:
    """A file that the runtime reads and that looks as `image` does in Blender.

    That is the image's own file, or its pixels written to `copy` as PNG, in sRGB: for what is
    packed, painted, rendered, in floating point or in a format that only Blender reads.
    Raises XRayError `unreadable_image` for an image without pixels.
    """
    if not isinstance(image, bpy.types.Image):
        return _readable(Path(image), copy)
    if image.source == "FILE" and not image.packed_file and not image.is_dirty:
        path = Path(bpy.path.abspath(image.filepath, library=image.library))
        # What Blender cannot read may be one that the runtime can, or one that it can name.
        if path.is_file() and (not any(image.size) or _is_shared(image)):
            return path
    pixels = texture_from_image(image)
    if pixels is not None:
        write_png(copy, pixels)
    else:
        _save_rendered(image, copy)
    return copy


def _readable(path: Path, copy: Path) -> Path:
    """As `image_file`, of a file."""
    try:
        known = unread_image(first_bytes(path)) is None
    except OSError:
        return path  # the runtime says why it cannot be read
    if known:
        return path
    with TemporaryData() as read:
        try:
            image: Any = read.own(bpy.data.images.load(str(path)))
        except RuntimeError:
            return path
        return image_file(image, copy) if any(image.size) else path


def _is_shared(image: Any) -> bool:
    """Whether the runtime reads the file of an image with the colours that Blender shows."""
    shown = image.file_format in _SHARED_FORMATS and not image.is_float
    return bool(shown and image.colorspace_settings.name == "sRGB")


def _save_rendered(image: Any, copy: Path) -> None:
    """Write an image whose pixels only Blender can get at, as the Render Result, to `copy`."""
    # The scene that was rendered holds the result, so its own settings have to say the format.
    scene: Any = bpy.context.scene
    try:
        with _png_settings(scene.render.image_settings):
            image.save_render(str(copy), scene=scene)
    except RuntimeError as error:
        rendered = image.type in ("RENDER_RESULT", "COMPOSITING")
        raise XRayError(
            "unreadable_image",
            f"The image {image.name} has no pixels{' yet' if rendered else ''}.",
            "Render first (F12), or choose another one."
            if rendered
            else "Reload it, or choose another one.",
        ) from error


@contextmanager
def _png_settings(settings: Any) -> Iterator[None]:
    """Set a scene's image settings to PNG, and set them back at the end."""
    wanted = {"file_format": "PNG", "color_mode": "RGBA", "color_depth": "8"}
    if hasattr(settings, "media_type"):  # from Blender 5.0 on
        wanted = {"media_type": "IMAGE", **wanted}
    before = {name: getattr(settings, name) for name in wanted}
    for name, value in wanted.items():
        setattr(settings, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(settings, name, value)


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
