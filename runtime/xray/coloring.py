"""The texture of a generated solid: visible colours in the left half, hidden ones in the right.

UVs are the mesh's projection onto the camera's image. Visible faces use the left half, which is the
image with its lighting removed, blurred where it would be stretched. All other faces use the right
half, which is the same image, or mixes the visible colours at the same height, those nearby and the
predicted ones of the last hidden layer.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from xray_addon.camera import Camera
from xray_addon.surface import Material, Surface

from .decoding import Layers, extended
from .solid import pairs_behind

Floats = NDArray[np.float32]

# Hidden colours are a mixture: a share of the predicted ones, moved halfway to the visible ones'
# mean, a share of the visible ones around the same pixel, blurred by NEAR_BLUR (px of 256), and the
# median of the visible ones at the same height. Most objects have the same colours all around: a
# mushroom's cap is red behind, too, and its foot green.
OWN_SHARE = 0.3
NEAR_SHARE = 0.2
NEAR_BLUR = 24.0
SLICES = 16  # into which the heights of the visible layer are divided
OUTLIERS = 0.005  # share of the heights below the lowest slice and above the highest one
# Width in px of 256 over which hidden colours blend into the visible ones towards the outline.
RIM = 8.0
# Where the visible surface is steep, one pixel of the image covers a long strip. Near the outline
# the image fades into its blurred colours where a strip is 3 times as long as wide; wholly at 8.
STEEP = (3.0, 8.0)
BEHIND = 0.06  # a face this far (frame units) behind the visible layer is hidden
COARSE = 4  # pixels of the layers per pixel of the network, along one side
MARGIN = 0.01  # unused border at both sides of each half, as a share of its width


def textured(
    surface: Surface, camera: Camera, depth: Floats, texture: NDArray[np.uint8]
) -> Surface:
    """`surface` with UVs for a texture made by `two_sides`, projected from `camera`.

    depth : (H, W) of the visible layer along the rays. Faces far behind it are hidden even if they
    face the camera.
    """
    vertices = surface.vertices.astype(np.float64)
    seen = (vertices - camera.position) @ camera.camera_to_world[:3, :3]
    half = math.tan(camera.fov_x / 2)
    place = seen[:, :2] / -seen[:, 2:] / half / 2 + 0.5  # 0..1 from the lower left corner
    corners = place[surface.faces].clip(MARGIN, 1 - MARGIN)
    a, b, c = (vertices[surface.faces[:, corner]] for corner in range(3))
    towards = (np.cross(b - a, c - a) * (camera.position - a)).sum(axis=1) > 0
    height, width = depth.shape
    middle = place[surface.faces].mean(axis=1)
    column = (middle[:, 0] * width).astype(np.intp).clip(0, width - 1)
    row = ((1 - middle[:, 1]) * height).astype(np.intp).clip(0, height - 1)
    away = np.linalg.norm((a + b + c) / 3 - camera.position, axis=1) - depth[row, column]
    visible = towards & (away < BEHIND)
    corners[..., 0] = (corners[..., 0] + ~visible[:, None]) / 2
    return replace(
        surface,
        corner_uvs=corners.astype(np.float32),
        face_material=np.zeros(len(surface.faces), np.int64),
        materials=[Material(texture=texture, wrap="extend")],
    )


def two_sides(
    layers: Layers, image: NDArray[np.uint8], camera: Camera, *, mirrored: bool = False
) -> NDArray[np.uint8]:
    """The texture (I, 2 I, 3) of a closed object: visible colours left, hidden ones right.

    image : (I, I, 4) the network's input; I is a multiple of the layers' size. camera : of the
    layers. mirrored : whether the back looks as the front does.
    """
    size, outline = len(image), layers.outline
    # Extend the colours beyond the outline, so that no texel mixes with the background.
    visible = extended(layers.color[0], outline)
    edge = ndimage.gaussian_filter(visible, (RIM, RIM, 0))
    front = _resized(visible, size) + _detail(image, len(outline) // COARSE)
    inner = ndimage.binary_erosion(image[..., 3] > 127, iterations=2)
    faded = _resized(np.dstack([edge, _steep(layers, camera)]), size)
    front = extended(front, inner)
    front += (faded[..., :3] - front) * faded[..., 3:]
    if mirrored:
        back = front
    else:
        hidden = _hidden_colors(layers, visible, camera)
        rim = np.exp(-ndimage.distance_transform_edt(outline) / RIM).astype(np.float32)[..., None]
        back = _resized(hidden * (1 - rim) + edge * rim, size)
    both = np.concatenate([front, back], axis=1)
    return np.rint(both.clip(0, 1) * 255).astype(np.uint8)


def _steep(layers: Layers, camera: Camera) -> Floats:
    """How steep (H, W) the visible surface is near the outline: 0 where the image is good enough,
    1 where it would be stretched into streaks."""
    outline, (low, high) = layers.outline, STEEP
    depth = extended(layers.depth[0], outline & (layers.depth[0] > 0))
    slope = np.hypot(*np.gradient(depth)) * (camera.focal / depth.clip(min=1e-3))
    inside = ndimage.distance_transform_edt(outline)
    strip = np.where(inside < 2, high, np.hypot(1, slope))
    steep = ndimage.maximum_filter(_smooth_step((strip - low) / (high - low)), 3)
    steep *= 1 - _smooth_step(inside / RIM - 1)
    return ndimage.gaussian_filter(steep, 1.0).astype(np.float32)


def _smooth_step(x: NDArray[np.floating]) -> NDArray[np.floating]:
    """From 0 at 0 to 1 at 1, and constant outside of that."""
    x = x.clip(0, 1)
    return x * x * (3 - 2 * x)


def _hidden_colors(layers: Layers, visible: Floats, camera: Camera) -> Floats:
    """The colours (H, W, 3) where each ray leaves the body, mixed as described above. visible :
    (H, W, 3) where it enters."""
    outline = layers.outline
    last = pairs_behind(layers).sum(axis=0, keepdims=True)
    own = np.take_along_axis(layers.color[1::2], last[..., None], axis=0)[0]
    own += (visible[outline].mean(axis=0) - own[outline].mean(axis=0)) / 2
    near = ndimage.gaussian_filter(visible, (NEAR_BLUR, NEAR_BLUR, 0), truncate=2.0)
    front, back = layers.depth[0], np.take_along_axis(layers.depth[1::2], last, axis=0)[0]
    seen = outline & (front > 0)
    heights = _heights(extended(back, outline & (back > 0)), camera)
    level = _by_height(visible[seen], _heights(front, camera)[seen], heights)
    rest = 1 - OWN_SHARE - NEAR_SHARE
    return OWN_SHARE * extended(own, outline) + NEAR_SHARE * near + rest * level


def _heights(depth: Floats, camera: Camera) -> Floats:
    """Heights (H, W) of the points at `depth` (H, W) along the rays."""
    rays = camera.ray_directions(*np.indices(depth.shape)) @ camera.camera_to_world[2, :3]
    return (camera.position[2] + rays * depth).astype(np.float32)


def _by_height(colors: Floats, heights: Floats, wanted: Floats) -> Floats:
    """The median colour (H, W, 3) at each `wanted` height (H, W).

    colors, heights : (N, 3) and (N,) of the visible points.
    """
    low, high = np.quantile(heights, [OUTLIERS, 1 - OUTLIERS])
    thickness = max(float(high - low), 1e-6) / SLICES
    number = ((heights - low) / thickness).astype(np.intp).clip(0, SLICES - 1)
    known = np.unique(number)
    medians = np.stack([np.median(colors[number == one], axis=0) for one in known])
    middles = low + (known + 0.5) * thickness
    mixed = [np.interp(wanted, middles, medians[:, channel]) for channel in range(3)]
    return np.stack(mixed, axis=-1).astype(np.float32)


def with_detail(color: Floats, image: NDArray[np.uint8]) -> Floats:
    """The layers' colours (L, H, W, 3), with the fine detail of the image (I, I, 4) added to the
    first."""
    size = color.shape[1]
    factor = len(image) // size
    detail = _detail(image, size // COARSE)
    detail = detail.reshape(size, factor, size, factor, 3).mean(axis=(1, 3))
    return np.concatenate([(color[:1] + detail).clip(0, 1), color[1:]])


def _resized(colors: Floats, size: int) -> Floats:
    return np.stack(
        [
            np.asarray(
                Image.fromarray(np.ascontiguousarray(colors[..., channel])).resize(
                    (size, size), Image.Resampling.BILINEAR
                )
            )
            for channel in range(colors.shape[-1])
        ],
        axis=-1,
    )


def _detail(image: NDArray[np.uint8], coarse: int) -> Floats:
    """The difference between the image (I, I, 4) and itself reduced to `coarse` pixels a side; 0 at
    the outline, where the reduced image mixes with the background."""
    size = len(image)
    shown = image.astype(np.float32) / 255
    cells = shown.reshape(coarse, size // coarse, coarse, size // coarse, 4).mean(axis=(1, 3))
    smooth = _resized(cells[..., :3], size)
    covered = np.asarray(
        Image.fromarray(cells[..., 3]).resize((size, size), Image.Resampling.BILINEAR)
    )
    return (shown[..., :3] - smooth) * (covered > 0.98)[..., None]
