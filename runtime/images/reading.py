"""Reads any image file or array as an upright 8-bit sRGB image. Only this module opens image files.

Images may come from untrusted sources. Their format must be one of `FORMATS`, in the whole process:
Pillow supports forty, including EPS, which runs Ghostscript. The number of pixels is checked before
decoding. A decoded image takes at most 4 bytes per pixel, and reading it at most four times that.
"""

from __future__ import annotations

import math
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from xray_addon.errors import XRayError
from xray_addon.files.opening import open_regular
from xray_addon.files.signatures import BEGIN, Kind, unread_image

if TYPE_CHECKING:
    from numpy.typing import NDArray


MAX_SIDE = 2048  # px; more than any model here uses, but quick to work on
MAX_PIXELS = 1 << 26  # when decoded: 8192 x 8192; for a JPEG at an eighth of its size
LARGEST_FILE = 1 << 29  # bytes
ROWS_AT_ONCE = 256
FILM_DIAGONAL = 43.27  # mm, of 35 mm film
SHORTEST, LONGEST = 8, 2000  # mm, of the focal lengths that are believed
FORMATS = (
    "AVIF",
    "BMP",
    "GIF",
    "ICO",
    "JPEG",
    "JPEG2000",
    "PNG",
    "PPM",
    "TGA",
    "TIFF",
    "WEBP",
)

_UNKNOWN = Kind("is in no known image format", "Save it as PNG, JPEG or WebP and try again.")

# What Pillow's decoders raise on damaged files. They parse unchecked bytes, so parsing errors occur
# as well as OSError.
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    RuntimeError,  # of damaged WebP and AVIF
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def _forget_other_formats() -> None:
    """Remove all formats except `FORMATS` from Pillow, for all libraries in this process.

    trimesh opens textures by itself; rembg and others could open images.
    """
    Image.init()  # loads all of Pillow's formats now, or it would do so later
    for name in set(Image.OPEN) - set(FORMATS):
        del Image.OPEN[name]
    Image.ID[:] = [name for name in Image.ID if name in FORMATS]


_forget_other_formats()


@contextmanager
def open_image(
    file: str | PathLike[str] | bytes, side: int | None = None, name: str = ""
) -> Iterator[Image.Image]:
    """Open the image in a file, or in a file's bytes, without decoding it yet.

    name : used in errors. side : px; a JPEG may be decoded at a half, quarter or eighth of its size
    if that is at least this large.

    Errors that the body raises on damaged bytes become XRayError `unreadable_image`. Also raises
    that if the format is not in `FORMATS` or there are more than `MAX_PIXELS`, and `missing_file`.
    """
    if not name:
        name = "The image" if isinstance(file, bytes) else f"The image {Path(file).name!r}"
    with warnings.catch_warnings(), ExitStack() as stack:
        # Pillow warns from half its limit on, but such images are allowed and reduced immediately.
        # It also warns about metadata that is not used here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)
        try:
            stream = BytesIO(file) if isinstance(file, bytes) else open_regular(file)
            stack.enter_context(stream)
            if stream.seek(0, os.SEEK_END) > LARGEST_FILE:
                raise ValueError(f"it is larger than {LARGEST_FILE >> 20} MB")
            stream.seek(0)
            image = stack.enter_context(Image.open(stream, formats=FORMATS))
            if side is not None:
                image.draft(None, (side, side))
            check_pixels(image)
            yield image
        except FileNotFoundError as error:
            raise XRayError(
                "missing_file", f"There is no file {str(file)!r}.", "Check the image's path."
            ) from error
        except UnidentifiedImageError as error:
            stream.seek(0)
            kind = unread_image(stream.read(BEGIN)) or _UNKNOWN
            raise XRayError("unreadable_image", f"{name} {kind.what}.", kind.remedy) from error
        except _DECODING_ERRORS as error:
            raise _undecodable(name, error) from error


def check_pixels(image: Image.Image) -> None:
    """Raise Pillow's DecompressionBombError if there are more than `MAX_PIXELS`."""
    if image.size[0] * image.size[1] > MAX_PIXELS:
        raise Image.DecompressionBombError(f"{image.size[0]} x {image.size[1]} pixels")


def read_rgba(file: str | PathLike[str] | bytes) -> NDArray[np.uint8]:
    """(H, W, 4) of an image as stored, straight alpha. Raises as `open_image`."""
    name = "" if isinstance(file, bytes) else f"The image {file}"
    with open_image(file, name=name) as image:
        return np.asarray(image.convert("RGBA"))


def read_image(image: str | PathLike[str] | Image.Image | NDArray[np.uint8]) -> Image.Image:
    """Any image as upright 8-bit sRGB, in mode "RGB", or "RGBA" if it has transparency.

    image : a path, a PIL image (not modified) or an (H, W, 3 or 4) uint8 array.

    EXIF rotation is applied. Colours with an ICC profile are converted to sRGB. 16 bits are reduced
    to 8 by the format's full range. The first frame of an animation is used. Images with a side
    longer than `MAX_SIDE` are reduced to it.

    Raises XRayError: `missing_file`, `unreadable_image`.
    """
    if isinstance(image, Image.Image):
        return _decode(image, "The image")
    if isinstance(image, np.ndarray):
        return _from_array(image)
    return _from_file(Path(image))


def focal_length(image: str | PathLike[str] | Image.Image | NDArray[np.uint8]) -> float:
    """The focal length of a photo's camera by its EXIF data, in lengths of the image's diagonal.

    0 if it is not known, as for all pictures but photos. `FocalLengthIn35mmFilm` is of a film with
    a diagonal of 43.27 mm. It says nothing about a photo that was cropped, whose sides have
    another ratio than those that the EXIF data name.

    image : as for `read_image`; raises as that.
    """
    if isinstance(image, np.ndarray):
        return 0.0
    if not isinstance(image, Image.Image):
        with open_image(Path(image)) as opened:
            return focal_length(opened)
    if image.format == "PNG" and "exif" not in image.info:
        return 0.0  # `getexif` would decode all pixels to look behind them
    try:
        known = image.getexif().get_ifd(ExifTags.IFD.Exif)
        focal, *sides = (float(known.get(tag, 0)) for tag in _LENS_TAGS)
    except _DECODING_ERRORS:
        return 0.0  # the EXIF data is damaged, but not the pixels
    ratios = (max(pair) / max(min(pair), 1.0) for pair in (image.size, sides))
    cropped = all(sides) and not math.isclose(*ratios, rel_tol=0.02)
    return focal / FILM_DIAGONAL if SHORTEST <= focal <= LONGEST and not cropped else 0.0


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
    if not os.path.exists(path):  # unlike Path.exists, false for impossible names
        raise XRayError(
            "missing_file", f"There is no file {str(path)!r}.", "Check the image's path."
        )
    if path.is_dir():
        raise XRayError("unreadable_image", f"{str(path)!r} is a folder.", "Choose an image file.")
    with open_image(path, MAX_SIDE) as opened:
        return _decode(opened, name)


def _decode(image: Image.Image, name: str) -> Image.Image:
    """The pixels of an opened image, by the rules of `read_image`. Does not modify `image`."""
    if min(image.size) < 1:
        raise _empty(name)
    profile = image.info.get("icc_profile")
    try:
        check_pixels(image)
        image.load()
        small = at_most(_to_eight_bit(image), MAX_SIDE)
        return _to_srgb(_upright(small, image), profile)
    except _DECODING_ERRORS as error:
        raise _undecodable(name, error) from error


# Of the focal length, and of the sides of the photo as it was taken.
_LENS_TAGS = (
    ExifTags.Base.FocalLengthIn35mmFilm,
    ExifTags.Base.ExifImageWidth,
    ExifTags.Base.ExifImageHeight,
)
# The rotation for each EXIF orientation; 1 is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(small: Image.Image, image: Image.Image) -> Image.Image:
    """`small` rotated by the EXIF data of `image`, from which it was made."""
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DECODING_ERRORS:
        return small  # the EXIF data is damaged, but not the pixels
    return small if turn is None else small.transpose(turn)


def _to_eight_bit(image: Image.Image) -> Image.Image:
    """The image in the nearest of the modes L, LA, RGB, RGBA, CMYK and LAB."""
    if image.mode.startswith(("I", "F")):
        return _from_deep_grey(image)
    if image.mode in ("CMYK", "LAB"):
        return image
    if image.has_transparency_data:
        return image.convert("LA" if image.mode in ("LA", "La") else "RGBA")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """Mode L from 16-bit, 32-bit or float grey; LA if one grey value is defined as transparent."""
    pixels = np.asarray(image)
    if image.mode.startswith("I;16"):
        top = 65535.0
    else:
        # 32-bit and float files have no defined range: take the smallest usual one that fits.
        peak = max(float(part[np.isfinite(part)].max(initial=0)) for part in _strips(pixels))
        ranges = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0, 2.0**31 - 1)
        top = next((limit for limit in ranges if peak <= limit), peak)
    grey = np.empty(pixels.shape, np.uint8)
    for part, eight in zip(_strips(pixels), _strips(grey), strict=True):
        known = np.where(np.isfinite(part), part, 0.0).astype(np.float64)
        eight[:] = np.clip(np.rint(known * (255.0 / top)), 0, 255)
    result = Image.fromarray(grey)
    key = image.info.get("transparency")
    if isinstance(key, int):
        result.putalpha(Image.fromarray(np.where(pixels == key, np.uint8(0), np.uint8(255))))
    return result


def _strips(pixels: NDArray[Any]) -> list[NDArray[Any]]:
    """Views of a few rows each: converting all at once would take many times the image's memory."""
    return [pixels[row : row + ROWS_AT_ONCE] for row in range(0, len(pixels), ROWS_AT_ONCE)]


def at_most(image: Image.Image, side: int) -> Image.Image:
    """`image` reduced so that no side is longer than `side` px."""
    longest = max(image.size)
    if longest <= side:
        return image
    width, height = (max(1, round(n * side / longest)) for n in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Mode RGB or RGBA in sRGB, converted with the ICC `profile` if it is valid."""
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    color = image.convert(image.mode[:-1]) if alpha is not None else image
    srgb = ImageCms.createProfile("sRGB")
    sources: list[Any] = [BytesIO(profile)] if profile else []
    if color.mode == "LAB":
        sources.append(ImageCms.createProfile("LAB"))  # Pillow has no other conversion from LAB
    for source in sources:
        try:
            converted = ImageCms.profileToProfile(color, source, srgb, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            continue  # skip a broken profile, or one of another colour space
        if converted is not None:
            color = converted
            break
    result = color.convert("RGB")
    if alpha is not None:
        result.putalpha(alpha)
    return result


def _empty(name: str) -> XRayError:
    return XRayError("unreadable_image", f"{name} has no pixels.", "Choose another image.")


def _undecodable(name: str, error: BaseException) -> XRayError:
    if isinstance(error, Image.DecompressionBombError):
        return XRayError(
            "unreadable_image",
            f"{name} is too large: more than {MAX_PIXELS / 1e6:.0f} million pixels.",
            f"Reduce it; {MAX_SIDE} pixels on the longer side are enough.",
        )
    return XRayError(
        "unreadable_image",
        f"{name} can't be read: {error or type(error).__name__}.",
        "The file may be damaged or incomplete: export it again, as PNG or JPEG.",
    )
