"""Views of meshes for training and evaluation: an X-Ray and an image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xray_addon.camera import Camera
from xray_addon.canonical import FAR, NEAR, canonical_camera, place
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
    the placed object. camera : of `fine`. source : the original object, z up. azimuth : of the
    viewer, radians.
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


def view_object(
    surface: Surface,
    random: np.random.Generator,
    *,
    layers: int,
    resolution: int,
    image_resolution: int,
    roll: float = 0.0,
) -> TrainingView | None:
    """`surface` from a random side, or None if that view does not fit into the frame.

    roll : standard deviation of the camera's roll, radians.
    """
    azimuth = random.uniform(0, 2 * math.pi)
    elevation = random.uniform(MIN_ELEVATION, MAX_ELEVATION)
    lean = random.normal(0, roll) if roll else 0.0
    placed = place(surface, azimuth, elevation, roll=lean)
    if placed is None:
        return None
    matrix, scale = placed
    moved = surface.transformed(matrix)
    xray = cast(moved, canonical_camera(resolution, elevation), layers)
    camera = canonical_camera(image_resolution, elevation)
    fine = cast(moved, camera, 1)
    if not len(fine.index):
        return None
    return TrainingView(xray, fine, scale, elevation, moved, camera, surface, azimuth, lean)


def to_frames(xray: XRay) -> NDArray[np.float32]:
    """Training target (L, 8, H, W): depth -1 near to 1 far, normal, colour -1..1, hit -1 or 1.

    Pixels without a hit are 0 in all channels except the hit channel.
    """
    layers, height, width = xray.shape
    frames = np.zeros((layers, height * width, 8), dtype=np.float32)
    frames[..., 7] = -1
    layer, pixel = np.divmod(xray.index, height * width)
    hits = frames[layer, pixel]
    hits[:, 0] = np.clip((xray.hit_depth - NEAR) / (FAR - NEAR) * 2 - 1, -1, 1)
    hits[:, 1:4] = xray.hit_normal
    hits[:, 4:7] = xray.hit_color * 2 - 1
    hits[:, 7] = 1
    frames[layer, pixel] = hits
    return np.moveaxis(frames.reshape(layers, height, width, 8), -1, 1)
