"""Reads twelve slices, painted or rendered, from the user's files."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xray_addon.errors import XRayError
from xray_addon.slices.slicing import NAMES

from ..images.reading import read_image
from .preparation import on_background

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")


def read_slices(source: Any) -> NDArray[np.uint8]:
    """(12, S, S, 3) on white, in the order of `NAMES`.

    source : a folder with image files X_1 to Z_4, or one of these files; or the twelve as PIL
        images or uint8 arrays (S, S, 3 or 4).

    Raises XRayError `missing_slices`, which names them, `other_sizes` if sizes differ or are not
    square, and `unreadable_image`.
    """
    if not isinstance(source, str | PathLike):
        one = isinstance(source, Image.Image) or getattr(source, "ndim", 4) < 4
        return _checked([source] if one else list(source), list(NAMES))
    folder = Path(source)
    if folder.suffix.lower() in SUFFIXES and not folder.is_dir():
        folder = folder.parent
    found = {name: _file(folder, name) for name in NAMES}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise XRayError(
            "missing_slices",
            f"{folder} lacks {len(missing)} of the twelve slices: {', '.join(missing)}.",
            "Put X_1.png to X_4.png, Y_1.png to Y_4.png and Z_1.png to Z_4.png into one folder.",
        )
    paths = [path for path in found.values() if path is not None]
    return _checked(paths, [path.name for path in paths])


def _file(folder: Path, name: str) -> Path | None:
    return next((p for s in SUFFIXES if (p := folder / f"{name}{s}").is_file()), None)


def _checked(images: list[Any], names: list[str]) -> NDArray[np.uint8]:
    if len(images) != len(NAMES):
        raise XRayError(
            "missing_slices",
            f"Of the {len(NAMES)} slices {len(images)} are given.",
            f"Give a folder with all of them, or twelve images in the order {', '.join(NAMES)}.",
        )
    pictures = [np.asarray(read_image(image)) for image in images]
    height, width = pictures[0].shape[:2]
    for picture, name in zip(pictures, names, strict=True):
        if picture.shape[:2] != (height, width) or height != width:
            raise XRayError(
                "other_sizes",
                f"{name} has {picture.shape[1]}x{picture.shape[0]} pixels, "
                f"{names[0]} has {width}x{height}.",
                "Make all twelve slices squares of one size.",
            )
    return np.stack(
        [
            on_background(picture, "white") if picture.shape[2] == 4 else picture
            for picture in pictures
        ]
    )
