"""Converts images between files, arrays and Blender's Image Editor."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from numpy.typing import NDArray

from ...xray_addon.errors import XRayError
from ...xray_addon.files.signatures import first_bytes, unread_image
from .materials import texture_from_image
from .staging import TemporaryData

# Formats of byte images that Blender and the runtime read in the same way.
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


def own_file(image: str | Path | bpy.types.Image) -> Path | None:
    """The file with the pixels of an image; None if the pixels are only in a datablock."""
    if not isinstance(image, bpy.types.Image):
        return Path(image)
    if image.source != "FILE" or image.packed_file or image.is_dirty:
        return None
    path = Path(bpy.path.abspath(image.filepath, library=image.library))
    return path if path.is_file() else None


def shared_file(image: str | Path | bpy.types.Image) -> Path | None:
    """The file of an image, if the runtime reads it with the colours that Blender shows.

    None for images that are packed, painted, rendered, in floating point or in a format that only
    Blender reads: use their `shown_pixels` instead.
    """
    if isinstance(image, bpy.types.Image):
        file = own_file(image)
        # If Blender cannot read it, perhaps the runtime can, or can say what is wrong.
        return file if not any(image.size) or _is_shared(image) else None
    path = Path(image)
    try:
        known = unread_image(first_bytes(path)) is None
    except (OSError, ValueError):
        return path  # the runtime will report why it cannot be read
    if known:
        return path
    with _loaded(path) as found:
        return None if found is not None else path


def shown_pixels(image: Path | bpy.types.Image) -> NDArray[np.uint8]:
    """(h, w, 3 or 4) sRGB with straight alpha, row 0 at the top, as Blender shows an image.

    Raises XRayError `unreadable_image` for an image without pixels.
    """
    if isinstance(image, bpy.types.Image):
        pixels = texture_from_image(image)
        return _rendered_pixels(image) if pixels is None else pixels
    with _loaded(image) as found:
        if found is None:
            raise XRayError(
                "unreadable_image", f"{image} cannot be read as an image.", "Choose another one."
            )
        return shown_pixels(found)


@contextmanager
def _loaded(path: Path) -> Iterator[Any]:
    """The image in a file as a temporary datablock; None if Blender cannot read it."""
    with TemporaryData() as read:
        try:
            image: Any = read.own(bpy.data.images.load(str(path)))
        except RuntimeError:
            image = None
        yield image if image is not None and any(image.size) else None


def _is_shared(image: Any) -> bool:
    """Whether the runtime reads the file of an image with the colours that Blender shows."""
    shown = image.file_format in _SHARED_FORMATS and not image.is_float
    return bool(shown and image.colorspace_settings.name == "sRGB")


def _rendered_pixels(image: Any) -> NDArray[np.uint8]:
    """`shown_pixels` of an image that only Blender can access, such as the Render Result."""
    # The result belongs to the rendered scene, so that scene's settings must define the format.
    scene: Any = bpy.context.scene
    try:
        with (
            tempfile.TemporaryDirectory(prefix="xray-") as folder,
            _png_settings(scene.render.image_settings),
        ):
            path = Path(folder) / "image.png"
            image.save_render(str(path), scene=scene)
            return read_image(path)
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
    """Set a scene's image settings to PNG, and restore them at the end."""
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


def ensure_image_editor(image: Any) -> None:
    """Show `image` in a new window if no Image Editor is open. Without windows, do nothing."""
    if not (image_editors() or bpy.app.background):
        open_image_editor(image)


def open_image_editor(image: Any, arrange: Callable[[Any], None] | None = None) -> None:
    """Show `image` in an Image Editor in a new window, whose area is given to `arrange`.

    The window opens when the running operator has ended: Blender crashes if the operator of a
    pressed button opens one itself, because the button's region is gone then.
    """
    name = image.name

    def open_window() -> None:
        manager: Any = bpy.context.window_manager
        with bpy.context.temp_override(window=manager.windows[0]):
            bpy.ops.wm.window_new()
        area = manager.windows[-1].screen.areas[0]
        area.ui_type = "IMAGE_EDITOR"
        area.spaces.active.image = bpy.data.images.get(name)
        if arrange is not None:
            arrange(area)

    bpy.app.timers.register(open_window, first_interval=0)
