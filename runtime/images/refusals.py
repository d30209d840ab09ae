"""Reasons that an object cannot be cut out which a person can fix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from xray_addon.errors import XRayError

from .plain_background import to_lab
from .reading import at_most

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIDE = 512  # px, of the image that is checked
# A chequered background in the image: squares of two even greys, as editors show transparency.
_FRAME = 0.1  # of the shorter side: the border strip, which rarely contains the object
_GREY = 6.0  # CIELAB: maximum chroma
_APART = (3.0, 60.0)  # CIELAB: lightness difference of the two greys
_EVEN = 0.8  # of the frame has one of the two greys
_ALTERNATE = 0.6  # correlation at whole squares
_SQUARES = range(3, 65)  # px
# An object cut off by the border, in front of a plain background.
_PLAIN = 0.3  # minimum share of the border that has one colour
_ALIKE = 8.0  # CIELAB: maximum distance from that colour
_STRAY = 2.0  # CIELAB: maximum distance of the border's median pixel from it
_MOST_CUTS = 4  # separate parts of the border that show the object


def check_chequered(image: Image.Image) -> None:
    """Raise XRayError `fake_transparency` if the background is a chequered pattern."""
    small = at_most(image.convert("RGB"), _SIDE)
    # Reducing turns small squares into an even grey, so a part is also checked at full size.
    part = image.convert("RGB").crop((0, 0, min(image.width, _SIDE), min(image.height, _SIDE)))
    if _is_chequered(small) or (small.size != image.size and _is_chequered(part, corner=True)):
        raise XRayError(
            "fake_transparency",
            "The image is not transparent: a chequered pattern is drawn as its background.",
            "Get the original file with transparency, or remove the pattern in an image editor.",
        )


def check_border(image: Image.Image) -> None:
    """Raise XRayError `object_at_border` if the border cuts off an object in front of a plain
    background."""
    lab = to_lab(at_most(image.convert("RGB"), _SIDE))
    ring = np.concatenate([lab[0], lab[1:, -1], lab[-1, -2::-1], lab[-2:0:-1, 0]])
    bins, counts = np.unique(np.round(ring / _ALIKE), axis=0, return_counts=True)
    plain = np.linalg.norm(ring - _ALIKE * bins[counts.argmax()], axis=1) < 1.5 * _ALIKE
    distance = np.linalg.norm(ring - np.median(ring[plain], axis=0), axis=1)
    plain = distance < _ALIKE
    # Ignore short runs, which are noise. The border is a closed ring.
    smooth = np.convolve(np.pad(plain, 5, mode="wrap"), np.ones(11) / 11, mode="valid") > 0.5
    cuts = int((np.diff(smooth.astype(int), append=int(smooth[0])) == 1).sum())
    share = float(smooth.mean())
    even = float(np.median(distance[plain])) <= _STRAY
    if even and _PLAIN <= share < 1.0 and 1 <= cuts <= _MOST_CUTS:
        raise XRayError(
            "object_at_border",
            f"The image's border cuts off the object: {1 - share:.0%} of the border shows it.",
            "Use an image that shows all of it, with some room around it.",
        )


def _is_chequered(image: Image.Image, *, corner: bool = False) -> bool:
    """Whether squares of two greys alternate along the border, or everywhere."""
    lab = to_lab(image)
    height, width = lab.shape[:2]
    rim = round(_FRAME * min(height, width))
    if rim < 4:
        return False
    frame = np.ones((height, width), dtype=np.bool_)
    if not corner:
        frame[rim:-rim, rim:-rim] = False
    light = lab[..., 0]
    low, high = np.quantile(light[frame], (0.1, 0.9))
    if not _APART[0] < high - low < _APART[1]:
        return False
    bright = light > (low + high) / 2
    levels = np.where(bright, np.median(light[frame & bright]), np.median(light[frame & ~bright]))
    even = (np.abs(light - levels) < 0.25 * (high - low)) & (np.hypot(*lab[..., 1:].T).T < _GREY)
    if even[frame].mean() < _EVEN:
        return False
    sign = np.where(frame & even, np.where(bright, 1.0, -1.0), 0.0)
    return any(_alternates(sign, side) for side in _SQUARES if 4 * side <= min(height, width))


def _alternates(sign: NDArray[np.float64], side: int) -> bool:
    """Whether `sign` (H, W), 0 if unknown, alternates between squares of `side` px."""
    wanted = (((0, side), -1), ((side, 0), -1), ((side, side), 1), ((0, 2 * side), 1))
    for (down, right), expected in wanted:
        height, width = sign.shape
        both = sign[: height - down, : width - right] * sign[down:, right:]
        known = np.count_nonzero(both)
        if not known or expected * both.sum() / known < _ALTERNATE:
            return False
    return True
