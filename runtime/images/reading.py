"""Any image file or array as an upright 8-bit sRGB image."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from xray_addon.errors import XRayError

if TYPE_CHECKING:
    from numpy.typing import NDArray


MAX_SIDE = 2048  # px; more than any model here sees, little enough to work on quickly

# What Pillow's decoders raise on damaged files. They parse bytes that nobody checked, so beside
# OSError come the errors of the parsing itself.
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    NotImplementedError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


# ---------------------------------------------------------------------------------------- reading


def read_image(image: str | PathLike[str] | Image.Image | NDArray[np.uint8]) -> Image.Image:
    """Any image as upright 8-bit sRGB, mode "RGB" or, where it has transparency, "RGBA".

    image : a path, a PIL image (left as it is) or an (H, W, 3 or 4) uint8 array.

    EXIF rotation is applied; colours go to sRGB where the image brings an ICC profile; 16 bits
    become 8 by the format's full range; of an animation the first frame is taken; a side longer
    than `MAX_SIDE` is reduced to it.

    Raises XRayError: `missing_file`, `unreadable_image`.
    """
    with warnings.catch_warnings():
        # Pillow warns of images from half its limit on, which are legal and reduced right away,
        # and of metadata that is not used here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)
        if isinstance(image, Image.Image):
            return _decode(image, "The image")
        if isinstance(image, np.ndarray):
            return _from_array(image)
        return _from_file(Path(image))


def _from_array(array: NDArray[np.uint8]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (3, 4):
        raise XRayError(
            "unreadable_image",
            f"The image array has shape {array.shape} and type {array.dtype}.",
            "Give an (H, W, 3) or (H, W, 4) array of type uint8.",
        )
    if array.size == 0:
        raise _empty("The image array")
    return _decode(Image.fromarray(array), "The image array")


def _from_file(path: Path) -> Image.Image:
    name = f"The image {path.name!r}"
    if not os.path.exists(path):  # unlike Path.exists, false for names no file can have
        raise XRayError(
            "missing_file", f"There is no file {str(path)!r}.", "Check the image's path."
        )
    if path.is_dir():
        raise XRayError("unreadable_image", f"{str(path)!r} is a folder.", "Choose an image file.")
    try:
        with Image.open(path) as opened:
            # JPEG decodes straight to a half, quarter or eighth; other formats ignore it.
            opened.draft(None, (MAX_SIDE, MAX_SIDE))
            return _decode(opened, name)
    except UnidentifiedImageError as error:
        what = "is an empty file" if path.stat().st_size == 0 else "is in no known image format"
        raise XRayError(
            "unreadable_image", f"{name} {what}.", "Save it as PNG, JPEG or WebP and try again."
        ) from error
    except _DECODING_ERRORS as error:
        raise _undecodable(name, error) from error


def _decode(image: Image.Image, name: str) -> Image.Image:
    """Pixels of an opened image, by the rules of `read_image`. Leaves `image` as it is."""
    if min(image.size) < 1:
        raise _empty(name)
    profile = image.info.get("icc_profile")
    try:
        image.load()
        small = at_most(_to_eight_bit(_upright(image)), MAX_SIDE)
        return _to_srgb(small, profile)
    except _DECODING_ERRORS as error:
        raise _undecodable(name, error) from error


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF data says."""
    try:
        return ImageOps.exif_transpose(image)
    except _DECODING_ERRORS:
        return image  # damaged EXIF data says nothing of the pixels, which are sound


def _to_eight_bit(image: Image.Image) -> Image.Image:
    """The image in mode L, LA, RGB, RGBA, CMYK or LAB, whichever is nearest to what it was."""
    if image.mode.startswith(("I", "F")):
        return _from_deep_grey(image)
    if image.mode in ("CMYK", "LAB"):
        return image
    if image.has_transparency_data:
        return image.convert("LA" if image.mode in ("LA", "La") else "RGBA")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """Mode L, or LA where one grey value is named transparent, from 16 or 32 bit or float grey."""
    values = np.asarray(image).astype(np.float64)
    known = np.isfinite(values)
    grey = np.where(known, values, 0.0)
    if image.mode.startswith("I;16"):
        top = 65535.0
    else:
        # 32-bit and float files state no range: the smallest usual one that holds the values.
        peak = float(grey.max())
        ranges = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0, 2.0**31 - 1)
        top = next((limit for limit in ranges if peak <= limit), peak)
    result = Image.fromarray(np.clip(np.rint(grey * (255.0 / top)), 0, 255).astype(np.uint8))
    key = image.info.get("transparency")
    if isinstance(key, int):
        result.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return result


def at_most(image: Image.Image, side: int) -> Image.Image:
    """`image` reduced so that no side is longer than `side` px."""
    longest = max(image.size)
    if longest <= side:
        return image
    width, height = (max(1, round(n * side / longest)) for n in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Mode RGB or RGBA in sRGB, by the ICC `profile` where there is a sound one."""
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    color = image.convert(image.mode[:-1]) if alpha is not None else image
    srgb = ImageCms.createProfile("sRGB")
    sources: list[Any] = [BytesIO(profile)] if profile else []
    if color.mode == "LAB":
        sources.append(ImageCms.createProfile("LAB"))  # Pillow has no other way out of LAB
    for source in sources:
        try:
            converted = ImageCms.profileToProfile(color, source, srgb, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            continue  # a broken profile, or one of another colour space, says nothing of value
        if converted is not None:
            color = converted
            break
    result = color.convert("RGB")
    if alpha is not None:
        result.putalpha(alpha)
    return result


def _pixel_limit() -> float:
    """Pixels beyond which Pillow refuses an image as a decompression bomb."""
    return 2.0 * (Image.MAX_IMAGE_PIXELS or float("inf"))


def _empty(name: str) -> XRayError:
    return XRayError("unreadable_image", f"{name} has no pixels.", "Choose another image.")


def _undecodable(name: str, error: BaseException) -> XRayError:
    if isinstance(error, Image.DecompressionBombError):
        return XRayError(
            "unreadable_image",
            f"{name} is too large: more than {_pixel_limit() / 1e6:.0f} million pixels.",
            f"Reduce it; {MAX_SIDE} pixels on the longer side are enough.",
        )
    return XRayError(
        "unreadable_image",
        f"{name} can't be read: {error or type(error).__name__}.",
        "The file may be damaged or incomplete: export it again, as PNG or JPEG.",
    )
