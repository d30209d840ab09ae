"""Tells an image file by its first bytes, quickly, before anything large is loaded for it."""

from __future__ import annotations

from os import PathLike

from xray_addon.files.opening import open_regular

_BEGINNINGS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",  # JPEG
    b"GIF8",
    b"BM",
    b"II*\x00",  # TIFF, either byte order
    b"MM\x00*",
    b"\x00\x00\x00\x0cjP  ",  # JPEG 2000
)


def check_image(file: str | PathLike[str]) -> None:
    """Raise the XRayError that reading `file` would, if its first bytes are those of no image.

    An empty file is left to whoever reads it. Raises as `runtime.images.reading.open_image`.
    """
    with open_regular(file) as stream:
        beginning = stream.read(16)
    webp = beginning[:4] == b"RIFF" and beginning[8:12] == b"WEBP"
    if not beginning or webp or beginning.startswith(_BEGINNINGS):
        return
    # Any other kind is Pillow's to tell, which is not needed for the usual ones.
    from .reading import open_image

    with open_image(file):
        pass
