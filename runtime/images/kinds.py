"""Recognises image files by their first bytes, before any large module is loaded."""

from __future__ import annotations

import os
from os import PathLike

from xray_addon.errors import XRayError
from xray_addon.files.signatures import first_bytes
from xray_addon.systems.system import Inputs

_BEGINNINGS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",  # JPEG
    b"GIF8",
    b"BM",
    b"II*\x00",  # TIFF, either byte order
    b"MM\x00*",
    b"\x00\x00\x00\x0cjP  ",  # JPEG 2000
)


def check_inputs(inputs: Inputs) -> None:
    """Check that the image and the mask are files of images, before a model is loaded.

    Raises XRayError `missing_file`, and those of `check_image`.
    """
    for file in (inputs.image, inputs.mask):
        if file is None:
            continue
        if not os.path.isfile(file):
            raise XRayError("missing_file", f"There is no image file {file}.", "Check the path.")
        check_image(file)


def check_image(file: str | PathLike[str]) -> None:
    """Raise the XRayError of reading `file` if its first bytes are not those of an image.

    Empty files are not checked. Raises as `runtime.images.reading.open_image`.
    """
    try:
        beginning = first_bytes(file)
    except OSError:
        beginning = b"?"  # `open_image` says why it cannot be read
    webp = beginning[:4] == b"RIFF" and beginning[8:12] == b"WEBP"
    if not beginning or webp or beginning.startswith(_BEGINNINGS):
        return
    # Other formats need Pillow to recognise them; the usual ones do not.
    from .reading import open_image

    with open_image(file):
        pass
