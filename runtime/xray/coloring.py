"""The texture of a generated solid: what the image shows, and beside it a guess at what it hides.

The mesh is projected along the rays that the layers were predicted along. Faces that are turned
towards the camera take their colours from the left half of the texture, which is the image without
its light; all others from the right half, in which the same rays lead to the last hidden layer.
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

from .decoding import Layers

Floats = NDArray[np.float32]

# What is hidden has less of the predicted colours than of the visible ones' mean, since these are
# nearer: on the scans the error is 0.064 instead of 0.069.
OWN_SHARE = 0.5
# Towards the outline, within so many px of 256, hidden colours become those that are seen there.
RIM = 8.0
BEHIND = 0.06  # frame units behind what is seen from where faces are hidden
COARSE = 4  # pixels of the layers, a side, to one of the network's
MARGIN = 0.01  # between the halves of the texture, in its width


def textured(
    surface: Surface, camera: Camera, depth: Floats, texture: NDArray[np.uint8]
) -> Surface:
    """`surface` with a texture of two halves, as `two_sides` makes, that `camera`'s rays lead to.

    depth : (H, W) of what is seen, along the rays. What lies far behind it is hidden, though it
    may be turned towards the camera.
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


def two_sides(layers: Layers, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The texture (I, 2 I, 3) of a closed object: what is seen, and what is hidden.

    image : (I, I, 4) what was shown, I a multiple of the layers' size.
    """
    size, outline = len(image), layers.outline
    # Beyond the outline the nearest colours go on, so that no texel mixes with the background.
    visible = _extended(layers.color[0], outline)
    hidden = _extended(_last_hidden(layers), outline)
    near = ndimage.gaussian_filter(visible, (RIM, RIM, 0))
    mean = visible[outline].mean(axis=0)
    drift = mean - hidden[outline].mean(axis=0)
    hidden = OWN_SHARE * (hidden + drift / 2) + (1 - OWN_SHARE) * (mean + near) / 2
    rim = np.exp(-ndimage.distance_transform_edt(outline) / RIM).astype(np.float32)[..., None]
    back = _resized(hidden * (1 - rim) + near * rim, size)
    front = _resized(visible, size) + _detail(image, len(outline) // COARSE)
    inner = ndimage.binary_erosion(image[..., 3] > 127, iterations=2)
    both = np.concatenate([_extended(front, inner), back], axis=1)
    return np.rint(both.clip(0, 1) * 255).astype(np.uint8)


def _last_hidden(layers: Layers) -> Floats:
    """Colours (H, W, 3) of where each ray leaves the object for good."""
    likely = (layers.share > 0.5) & (layers.depth > 0)
    last = np.logical_and.accumulate(likely, axis=0)[1::2].sum(axis=0).clip(1) - 1
    color: Floats = np.take_along_axis(layers.color[1::2], last[None, ..., None], axis=0)[0]
    return color


def with_detail(color: Floats, image: NDArray[np.uint8]) -> Floats:
    """Layers' colours (L, H, W, 3), the first with what of the image (I, I, 4) they cannot hold."""
    size = color.shape[1]
    factor = len(image) // size
    detail = _detail(image, size // COARSE)
    detail = detail.reshape(size, factor, size, factor, 3).mean(axis=(1, 3))
    return np.concatenate([(color[:1] + detail).clip(0, 1), color[1:]])


def _extended(colors: Floats, inside: NDArray[np.bool_]) -> Floats:
    """Colours (H, W, 3); those outside become those of the nearest pixel inside."""
    if inside.all() or not inside.any():
        return colors
    nearest = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    return colors[tuple(nearest)]


def _resized(colors: Floats, size: int) -> Floats:
    return np.stack(
        [
            np.asarray(
                Image.fromarray(np.ascontiguousarray(colors[..., channel])).resize(
                    (size, size), Image.Resampling.BILINEAR
                )
            )
            for channel in range(3)
        ],
        axis=-1,
    )


def _detail(image: NDArray[np.uint8], coarse: int) -> Floats:
    """What of the image (I, I, 4) `coarse` pixels a side cannot hold; 0 at the outline, where they
    mix it with the background."""
    size = len(image)
    shown = image.astype(np.float32) / 255
    cells = shown.reshape(coarse, size // coarse, coarse, size // coarse, 4).mean(axis=(1, 3))
    smooth = _resized(cells[..., :3], size)
    covered = np.asarray(
        Image.fromarray(cells[..., 3]).resize((size, size), Image.Resampling.BILINEAR)
    )
    return (shown[..., :3] - smooth) * (covered > 0.98)[..., None]
