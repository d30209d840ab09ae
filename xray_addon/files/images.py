"""Recognises image files by their names."""

from __future__ import annotations

from pathlib import Path

from ..errors import XRayError

# Image formats that Blender reads. If the runtime cannot read one, Blender sends the pixels.
IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".png", ".tga", ".tif", ".tiff", ".webp"}
    | {".cin", ".dpx", ".exr", ".hdr"}
)


def images_in(folder: Path) -> list[Path]:
    """The image files in `folder`, sorted by name. Raises XRayError `no_images`."""
    found = sorted(
        path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    if not found:
        raise XRayError("no_images", f"{folder} contains no images.", "Choose another folder.")
    return found
