"""Cuts the object off a background of one colour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.polynomial import chebyshev
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2lab

from xray_addon.progress import Progress

from .masks import (
    NotCutError,
    check_share,
    labelled_pieces,
    nearest_colors,
    pixel_scale,
    with_alpha,
)
from .reading import at_most

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xray_addon.progress import ProgressCallback

# Chebyshev polynomials up to a degree; NumPy's stubs do not type them.
_chebyshev: Any = chebyshev.chebvander

PLAIN_SIDE = 1024  # px: larger images are reduced to it, which saves seconds
_BORDER = 0.02  # of the shorter side: the border strip that is assumed to be background
_PLAIN_SHARE = 0.6  # of the strip must fit one smooth colour; the object may cover the rest
EVEN_SHARE = 0.95  # of the strip: from here the built-in network is no better (tests/benchmarks)
_PLAIN_SPREAD = 5.0  # CIELAB: maximum distance of the strip's median pixel from that colour
_EVEN_SPREAD = 1.0  # CIELAB: a fit this good needs no more terms, which would only follow noise
_TOLERANCE = (5.0, 14.0)  # CIELAB: minimum and maximum tolerance for background pixels
_SHADE = (0.55, 1.12)  # lightness relative to the background, from deep shadow to bright spot
_SHADE_SLOPE = 2.0  # CIELAB per pixel at 512 px: shadows are softer than the edges of objects
# A cast shadow, whose edges are as sharp as the object's. Tuned on renders of objects on plain
# grounds (docs/quality.md).
_CAST_SHADE = (0.5, 0.985)  # lightness relative to the ground
_CAST_HUE = 7.0  # CIELAB: light from the object tints its shadow
_CAST_TINT = 0.3  # of the ground's chroma: coloured light also tints it
_CAST_SLOPE = 2.5  # CIELAB per pixel at 512 px: a shadow is as even as the ground
_CAST_OPEN = 0.45  # of its outline touches ground; the object's own parts mostly touch the object
_CAST_LOW = 0.65  # of the height, from the top: its median row is lower
_CAST_FLAT = 0.5  # maximum height / width
_CAST_UNDER = 0.7  # of it, at most, is below the whole object
_CAST_LEAST = 0.0008  # of the pixels: minimum size
_OBJECT_LEFT = 0.25  # of the cut-out must not be shadow
_HOLE = 0.001  # of the pixels: minimum size of an enclosed patch of background
_CRUMB = 0.005  # of the largest piece: smaller ones are noise, dust and watermarks


def by_plain_background(
    image: Image.Image,
    online: bool,
    progress: ProgressCallback,
    least_share: float = _PLAIN_SHARE,
) -> NDArray[np.uint8]:
    """Cut out an object in front of a background of one colour, which may change smoothly.

    least_share : of the image's border that must have that colour.

    The background's colour is a smooth surface in CIELAB. It is fitted to the image's border, then
    to all pixels near it. Pixels near it that are connected to the border are background, and so
    are shadows on it and large enclosed patches of it. Each edge pixel gets the alpha that mixes
    the colours on either side to its own.
    """
    del online
    progress(Progress("background", 0, 1, "Cutting the object off its plain background"))
    rgb = np.asarray(at_most(image.convert("RGB"), PLAIN_SIDE))
    if min(rgb.shape[:2]) < 8:
        raise NotCutError("the image is too small to tell an object from its background")
    alpha = _edge_alpha(rgb, _background(rgb, least_share))
    check_share(alpha)
    progress(Progress("background", 1, 1))
    return with_alpha(rgb, alpha)


def _background(rgb: NDArray[np.uint8], least_share: float) -> NDArray[np.bool_]:
    """The plain background (H, W) bool of an image (H, W, 3) in sRGB."""
    height, width = rgb.shape[:2]
    # A slight blur keeps JPEG noise below the tolerance and hardly moves edges.
    lab = ndimage.gaussian_filter(to_lab(rgb), (0.7, 0.7, 0), mode="nearest")
    rim = max(1, round(_BORDER * min(height, width)))
    border = np.ones((height, width), dtype=np.bool_)
    border[rim:-rim, rim:-rim] = False

    plate, tolerance, even = _border_color(lab, border, least_share)
    distance = _distance(lab, plate)
    if not even:
        for degree in (3, 4, 5, 5):
            background = _reached(distance < tolerance, border)
            plate = _smooth_surface(lab, background, degree)
            distance = _distance(lab, plate)
            tolerance = _tolerance(distance[background])
    near = distance < tolerance

    slope = _slope(lab)
    alike = near | _shaded(lab, plate, 0.7 * tolerance)
    pixel = pixel_scale(height, width)
    # Opening stops the flood from leaking into the object through soft spots in its edge.
    soft = _opened(near | (alike & (slope < _SHADE_SLOPE)), round(2 * pixel))
    background = _reached(_opened(near, round(pixel)) | soft, border)
    # The object's edge is steep, so the flood stopped a little short of it. `_edge_alpha` corrects
    # what this takes from an object that looks like a shadow.
    background = ndimage.binary_dilation(
        background, iterations=round(2 * pixel), mask=background | alike
    )
    background |= _holes(near & ~background, distance, slope, tolerance)
    background |= _cast_shadows(lab, plate, slope, background)
    return _without_crumbs(background)


def to_lab(image: NDArray[np.uint8] | Image.Image) -> NDArray[np.float32]:
    """CIELAB (D65) of 8-bit sRGB (H, W, 3)."""
    return np.asarray(rgb2lab(np.asarray(image, dtype=np.float32) / 255), dtype=np.float32)


def _distance(lab: NDArray[np.float32], plate: NDArray[np.float32]) -> NDArray[np.float32]:
    """CIELAB distance of each pixel, (H, W)."""
    difference = lab - plate
    return np.asarray(np.sqrt(np.einsum("hwc,hwc->hw", difference, difference)))


def _tolerance(distance: NDArray[np.float32]) -> float:
    """The maximum distance of background from its fitted colour, from the measured distances."""
    return float(np.clip(4.0 * np.median(distance), *_TOLERANCE))


def _border_color(
    lab: NDArray[np.float32], border: NDArray[np.bool_], least_share: float
) -> tuple[NDArray[np.float32], float, bool]:
    """Fit the background's colour to the border: (H, W, 3), its tolerance, and whether it is even.

    The fit leaves out outliers, such as an object that touches the border.
    """
    middle = np.median(lab[border], axis=0)
    distance = np.sqrt(((lab - middle) ** 2).sum(axis=2))
    within = max(2.0 * _TOLERANCE[1], float(np.quantile(distance[border], _PLAIN_SHARE)))
    fitted = border & (distance <= within)
    for degree in (0, 1, 2, 2):
        plate = _smooth_surface(lab, fitted, degree)
        distance = _distance(lab, plate)
        spread = float(np.median(distance[border]))
        tolerance = _tolerance(distance[border])
        if spread < _EVEN_SPREAD:
            break
        fitted = border & (distance < 2.0 * tolerance)
        if not fitted.any():
            break
    share = float((distance[border] < tolerance).mean())
    if spread > _PLAIN_SPREAD or share < least_share:
        raise NotCutError(
            f"the background is not plain: {share:.0%} of the image's border is of one colour, "
            f"and it takes {least_share:.0%}"
        )
    return plate, tolerance, degree == 0


def _smooth_surface(
    values: NDArray[np.float32], where: NDArray[np.bool_], degree: int
) -> NDArray[np.float32]:
    """A polynomial of total `degree` in x and y, fitted to `values` (H, W, C) at `where`."""
    y, x = (_chebyshev(np.linspace(-1, 1, count), degree) for count in where.shape)
    pixels = np.flatnonzero(where)
    pixels = pixels[:: max(1, pixels.size // 20_000)]
    rows, columns = np.divmod(pixels, where.shape[1])
    terms = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    basis = np.stack([y[rows, i] * x[columns, j] for i, j in terms], axis=1)
    # Ridge on the terms that bend, which are otherwise unstable behind the object, without data.
    ridge = np.array([1e-9 if i + j < 2 else 1e-3 for i, j in terms]) * pixels.size
    target = basis.T @ values.reshape(-1, values.shape[2])[pixels]
    weights = np.linalg.solve(basis.T @ basis + np.diag(ridge), target)
    table = np.zeros((degree + 1, degree + 1, values.shape[2]))
    for (i, j), weight in zip(terms, weights, strict=True):
        table[i, j] = weight
    surface = np.einsum("hi,ijc,wj->hwc", y, table, x, optimize=True)
    return np.asarray(surface, dtype=np.float32)


def _slope(lab: NDArray[np.float32]) -> NDArray[np.float32]:
    """The gradient of the colour, (H, W): CIELAB per pixel of an image of 512 px."""
    pixel = pixel_scale(*lab.shape[:2])
    slopes = [ndimage.gaussian_gradient_magnitude(lab[..., c], pixel) for c in range(3)]
    return np.asarray(pixel * np.sqrt(sum(slope**2 for slope in slopes)), dtype=np.float32)


def _shaded(
    lab: NDArray[np.float32], plate: NDArray[np.float32], tolerance: float
) -> NDArray[np.bool_]:
    """The pixels (H, W) that are background in shadow or in a bright spot."""
    scale, hue = _shade(lab, plate)
    alike = hue < max(tolerance, _TOLERANCE[0])
    return np.asarray(alike & (scale > _SHADE[0]) & (scale < _SHADE[1]))


def _shade(
    lab: NDArray[np.float32], plate: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The lightness of each pixel relative to the background, 1 if equal, and the distance of its
    colour from the background's in that light, (H, W) each."""
    # Less light scales linear RGB, so also X, Y and Z. Their cube roots scale too, and L + 16, a
    # and b are made of these.
    offset = np.array([16, 0, 0], dtype=np.float32)
    seen, plain = lab + offset, plate + offset
    strength = np.maximum(np.einsum("hwc,hwc->hw", plain, plain), 1.0)
    scale = np.einsum("hwc,hwc->hw", seen, plain) / strength
    return np.asarray(scale), _distance(seen, scale[..., None] * plain)


def _cast_shadows(
    lab: NDArray[np.float32],
    plate: NDArray[np.float32],
    slope: NDArray[np.float32],
    background: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """The shadows (H, W) that an object casts on the ground: even, flat, at the object's base,
    darker than the ground but of about its hue, and bordered by ground along much of their outline.

    Empty if they would be most of the cut-out: then the object itself looks like a shadow.
    """
    found = ~background
    shadows = np.zeros_like(background)
    rows = np.flatnonzero(found.any(axis=1))
    if not rows.size:
        return shadows
    pixel = pixel_scale(*background.shape)
    lowest = rows[0] + _CAST_LOW * (rows[-1] + 1 - rows[0])
    scale, hue = _shade(lab, plate)
    tint = _CAST_HUE + _CAST_TINT * np.hypot(plate[..., 1], plate[..., 2])
    shaded = found & (hue < tint) & (scale < _CAST_SHADE[1]) & (scale > _CAST_SHADE[0])
    # A shadow's edge is less even than its inside, and wider in wide light.
    edge = found & (hue < tint + 2.0) & (scale > _CAST_SHADE[0] - 0.1) & (scale < 1.05)
    pieces, sizes = labelled_pieces(_opened(shaded & (slope < _CAST_SLOPE), round(pixel)) & found)
    candidates = []
    for number in np.flatnonzero(sizes >= _CAST_LEAST * background.size) + 1:
        piece = ndimage.binary_dilation(pieces == number, iterations=round(4 * pixel), mask=edge)
        outline = ndimage.binary_dilation(piece, iterations=round(2 * pixel)) & ~piece
        ys, xs = np.nonzero(piece)
        if (
            np.median(ys) >= lowest
            and np.ptp(ys) + 1 <= _CAST_FLAT * (np.ptp(xs) + 1)
            and (outline & background).sum() >= _CAST_OPEN * outline.sum()
            and (outline & found).any()
        ):
            candidates.append(piece)
            shadows |= piece
    left = found & ~shadows
    if left.sum() < _OBJECT_LEFT * found.sum():
        return np.zeros_like(background)
    # A piece below everything else carries the object: its feet, or a base.
    ground = np.flatnonzero(_opened(left, round(2 * pixel)).any(axis=1))
    for piece in candidates:
        under = piece[ground[-1] + 1 :].sum() if ground.size else piece.sum()
        if under > _CAST_UNDER * piece.sum():
            shadows &= ~piece
    return shadows


def _opened(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """`mask` without parts thinner than twice `radius` px; it continues outside the image."""
    padded = np.pad(mask, 2 * radius, mode="edge")
    opened: NDArray[np.bool_] = ndimage.binary_opening(padded, iterations=radius)
    return opened[2 * radius : -2 * radius, 2 * radius : -2 * radius]


def _reached(mask: NDArray[np.bool_], seeds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The parts of `mask` that are connected to `seeds`."""
    labels, sizes = labelled_pieces(mask)
    keep = np.zeros(sizes.size + 1, dtype=np.bool_)
    keep[labels[seeds]] = True
    keep[0] = False
    return keep[labels]


def _holes(
    candidates: NDArray[np.bool_],
    distance: NDArray[np.float32],
    slope: NDArray[np.float32],
    tolerance: float,
) -> NDArray[np.bool_]:
    """Background seen through the object, e.g. in a handle: large, even and close in colour."""
    labels, sizes = labelled_pieces(candidates)
    numbers = np.arange(1, sizes.size + 1)
    keep = np.zeros(sizes.size + 1, dtype=np.bool_)
    if sizes.size:
        keep[1:] = (
            (sizes > _HOLE * labels.size)
            & (ndimage.median(distance, labels, numbers) < 0.5 * tolerance)
            & (ndimage.median(slope, labels, numbers) < _SHADE_SLOPE)
        )
    return keep[labels]


def _without_crumbs(background: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The background, extended over all but the larger pieces of the object."""
    pieces, sizes = labelled_pieces(~background, corners=True)
    if sizes.size == 0:
        return background
    crumbs = np.concatenate([[False], sizes < _CRUMB * sizes.max()])
    return np.asarray(background | crumbs[pieces])


def _edge_alpha(rgb: NDArray[np.uint8], background: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Alpha (H, W), 0..1: 0 or 1 away from the object's edge, the mixture of colours along it."""
    reach = round(2 * pixel_scale(*background.shape))
    # An object that touches the image's border continues outside.
    inner = ndimage.binary_erosion(~background, iterations=reach, border_value=1)
    outer = ndimage.binary_erosion(background, iterations=reach, border_value=1)
    alpha = (~background).astype(np.float32)
    if not inner.any() or not outer.any():
        return alpha
    edge = ~inner & ~outer
    object_color, object_distance = nearest_colors(rgb, inner, edge)
    plain_color, plain_distance = nearest_colors(rgb, outer, edge)
    contrast = object_color - plain_color
    strength = (contrast**2).sum(axis=1)
    mixed = ((rgb[edge] - plain_color) * contrast).sum(axis=1) / np.maximum(strength, 1.0)
    # Not if both sides look alike, nor on a part too thin to have an inside.
    known = (strength > 24.0**2) & (np.maximum(object_distance, plain_distance) <= 2.5 * reach)
    alpha[edge] = np.where(known, np.clip(mixed, 0.0, 1.0), alpha[edge])
    return alpha
