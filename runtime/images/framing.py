"""Crops, centres and scales a cut-out for the models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from xray_addon.errors import XRayError

from .masks import labelled_pieces

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SPECK = 0.01  # of the largest piece: smaller ones are ignored in the bounding box


def frame(
    rgba: NDArray[np.uint8] | Image.Image, size: int, *, fill: float, alpha_threshold: float = 0.5
) -> NDArray[np.uint8]:
    """Crop, centre and scale the object: (size, size, 4) uint8, straight alpha; see `frame_sized`.

    Raises XRayError `no_object` if no pixel is opaque enough.
    """
    return frame_sized(rgba, size, fill=fill, alpha_threshold=alpha_threshold)[0]


def frame_sized(
    rgba: NDArray[np.uint8] | Image.Image, size: int, *, fill: float, alpha_threshold: float = 0.5
) -> tuple[NDArray[np.uint8], int]:
    """The framed object, (size, size, 4) uint8, straight alpha, and its longer side in `rgba`, px.

    The bounding box contains all pixels with alpha > `alpha_threshold` (0..1), except specks
    smaller than a hundredth of the largest connected piece. It is centred in the frame, and its
    longer side is `fill` (0..1) of the frame's, and at least a pixel. Outside the image the frame
    is transparent. An image that is already framed, to within about a pixel, is not resampled.
    Transparent pixels become black.

    rgba : (H, W, 4) uint8, straight alpha.

    Raises XRayError `no_object` if no pixel is opaque enough.
    """
    pixels = np.asarray(rgba)
    box = _bounding_box(pixels[..., 3] > 255.0 * alpha_threshold)
    left, top, right, bottom = box
    return _framed(pixels, box, size, fill), max(right - left, bottom - top)


def frame_with_mask(
    rgba: NDArray[np.uint8], mask: NDArray[np.bool_], size: int, *, fill: float
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Frame an image together with a mask (H, W); see `frame`.

    The masked area counts as part of the object, so that a redrawn part has room. Also raises
    `no_object` if the image is transparent, even if the mask is not empty.
    """
    seen = rgba[..., 3] > 127
    _bounding_box(seen)
    box = _bounding_box(seen | mask)
    drawn = np.full_like(rgba, 255)
    drawn[~mask] = 0
    return _framed(rgba, box, size, fill), _framed(drawn, box, size, fill)[..., 3] > 127


def _framed(
    pixels: NDArray[np.uint8], box: tuple[int, int, int, int], size: int, fill: float
) -> NDArray[np.uint8]:
    """The image with `box` (left, top, right, bottom) in the centre, at size x size."""
    left, top, right, bottom = box
    longer = max(right - left, bottom - top)
    middle = ((left + right) / 2, (top + bottom) / 2)
    off_center = max(abs(middle[0] - size / 2), abs(middle[1] - size / 2))
    if pixels.shape[:2] == (size, size) and abs(longer - fill * size) < 1.5 and off_center <= 0.5:
        framed = pixels.copy()
    else:
        # At least a pixel wide; any smaller share would only cost memory.
        framed = _resampled(pixels, middle, longer / max(fill, 1 / size), size)
    framed[framed[..., 3] == 0] = 0
    return framed


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the larger pieces of `mask`, in px; the last two exclusive."""
    pieces, sizes = labelled_pieces(mask, corners=True)
    if sizes.size == 0:
        raise XRayError(
            "no_object",
            "There is no object in the image: all of it is transparent.",
            "Choose an image that shows one object, or another way to remove the background.",
        )
    large = np.concatenate([[False], sizes >= _SPECK * sizes.max()])
    shown = large[pieces]
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _resampled(
    pixels: NDArray[np.uint8], middle: tuple[float, float], side: float, size: int
) -> NDArray[np.uint8]:
    """The square of `side` px around `middle` (x, y) of an RGBA image, at size x size."""
    height, width = pixels.shape[:2]
    left, top = (int(np.floor(m - side / 2)) for m in middle)
    # Average whole blocks first, down to four pixels per pixel of the frame: much faster.
    block = max(1, int(side / (4 * size)))
    cells = int(side / block) + 2
    x0, x1 = max(left, 0), min(left + block * cells, width)
    y0, y1 = max(top, 0), min(top + block * cells, height)
    # The blocks that the image reaches; all others are transparent.
    c0, c1 = (x0 - left) // block, -(-(x1 - left) // block)
    r0, r1 = (y0 - top) // block, -(-(y1 - top) // block)
    part = np.zeros((block * (r1 - r0), block * (c1 - c0), 4), dtype=np.uint8)
    down, right = y0 - top - block * r0, x0 - left - block * c0
    part[down : down + y1 - y0, right : right + x1 - x0] = pixels[y0:y1, x0:x1]
    if block > 1:
        part = np.asarray(Image.fromarray(part).reduce(block))  # premultiplies internally
    canvas = np.zeros((cells, cells, 4), dtype=np.uint8)
    canvas[r0:r1, c0:c1] = part
    x, y = (middle[0] - side / 2 - left) / block, (middle[1] - side / 2 - top) / block
    box = (x, y, x + side / block, y + side / block)
    alpha = canvas[..., 3].astype(np.float32) / np.float32(255.0)
    opacity = _resized(alpha, box, size)
    # Weight colours by alpha, or transparent pixels would tint the edge. Use floats, because the
    # filter overshoots: clipping alpha to 1 but not the colours would give a bright outline.
    weight = np.where(opacity > 0.5 / 255.0, opacity, np.inf)
    planes = [_resized(canvas[..., c] * alpha, box, size) / weight for c in range(3)]
    framed = np.stack([*planes, 255.0 * opacity], axis=-1)
    return np.asarray(np.rint(np.clip(framed, 0.0, 255.0)), dtype=np.uint8)


def _resized(
    plane: NDArray[np.float32], box: tuple[float, float, float, float], size: int
) -> NDArray[np.float32]:
    """The part `box` (left, top, right, bottom) of `plane` (H, W), at size x size."""
    # Pillow widens the filter when reducing. Bicubic, because the second lobe of a Lanczos filter
    # draws a faint second outline around a cut-out.
    image = Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(image, dtype=np.float32)
