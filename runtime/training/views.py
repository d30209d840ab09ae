"""Views of meshes for training and evaluation: an X-Ray and an image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xray_addon.camera import Camera
from xray_addon.canonical import (
    CANONICAL,
    FAR,
    NEAR,
    Frame,
    canonical_camera,
    change_of_depths,
    place,
)
from xray_addon.casting import cast
from xray_addon.surface import Surface
from xray_addon.xray import XRay

MIN_ELEVATION = math.radians(0)
MAX_ELEVATION = math.radians(45)


@dataclass(frozen=True, eq=False)
class TrainingView:
    """A view of an object placed in the canonical frame.

    xray : ground truth. fine : one layer at the image's resolution, for the shader. scale : length
    of the object's longest side in the frame. elevation, roll : radians, as in `place`. surface :
    the placed object. camera : of `fine`, and, resized, of `xray`. frame : of the camera. source :
    the original object, z up. azimuth : of the viewer, radians.
    """

    xray: XRay
    fine: XRay
    scale: float
    elevation: float
    surface: Surface
    camera: Camera
    source: Surface
    azimuth: float
    roll: float
    frame: Frame


def view_object(
    surface: Surface,
    random: np.random.Generator,
    *,
    layers: int,
    resolution: int,
    image_resolution: int,
    roll: float = 0.0,
    frame: Frame = CANONICAL,
) -> TrainingView | None:
    """`surface` from a random side, or None if that view does not fit into the frame.

    roll : standard deviation of the camera's roll, radians. frame : to place it in.
    """
    azimuth = random.uniform(0, 2 * math.pi)
    elevation = random.uniform(MIN_ELEVATION, MAX_ELEVATION)
    lean = random.normal(0, roll) if roll else 0.0
    placed = place(surface, azimuth, elevation, roll=lean, frame=frame)
    if placed is None:
        return None
    matrix, scale = placed
    moved = surface.transformed(matrix)
    xray = cast(moved, frame.camera(resolution, elevation), layers)
    camera = frame.camera(image_resolution, elevation)
    fine = cast(moved, camera, 1)
    if not len(fine.index):
        return None
    return TrainingView(xray, fine, scale, elevation, moved, camera, surface, azimuth, lean, frame)


def random_frame(random: np.random.Generator, farthest: float) -> Frame:
    """The frame of a camera up to `farthest` times as far away as in the canonical frame.

    Half of the cameras are as near as that one, the others have an even distribution of the
    logarithm of their distance.
    """
    if farthest == 1:
        return CANONICAL
    exponent = random.uniform(-1, 1)
    return CANONICAL.from_afar(farthest**exponent) if exponent > 0 else CANONICAL


def to_frames(xray: XRay, camera: Camera | None = None) -> NDArray[np.float32]:
    """Training target (L, 8, H, W): depth -1 near to 1 far, normal, colour -1..1, hit -1 or 1.

    camera : of `xray`, at any distance; its depths become those of the canonical camera (see
    `change_of_depths`). By default, they remain as they are. Pixels without a hit are 0 in all
    channels except the hit channel.
    """
    layers, height, width = xray.shape
    frames = np.zeros((layers, height * width, 8), dtype=np.float32)
    frames[..., 7] = -1
    layer, pixel = np.divmod(xray.index, height * width)
    hits = frames[layer, pixel]
    depth = xray.hit_depth
    if camera is not None:
        pixels = np.divmod(pixel, width)
        factor, offset = change_of_depths(camera, canonical_camera(width), *pixels)
        depth = depth * factor + offset
    hits[:, 0] = np.clip((depth - NEAR) / (FAR - NEAR) * 2 - 1, -1, 1)
    hits[:, 1:4] = xray.hit_normal
    hits[:, 4:7] = xray.hit_color * 2 - 1
    hits[:, 7] = 1
    frames[layer, pixel] = hits
    return np.moveaxis(frames.reshape(layers, height, width, 8), -1, 1)
