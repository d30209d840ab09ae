"""Sets a leaning object upright.

An image does not show well how far a tall object's top is from the camera, nor from how far above
it was taken. Where the network is unsure of both, it predicts something between standing and lying,
so figures lean back. Most objects are balanced: about as much of them is in front of their middle
at the top as at the bottom. So the object is turned forwards until its height and its depth towards
the viewer are not correlated: half of the angle by lowering the camera, half by tilting the layers.

Lowering the camera turns the object as a whole. The tilt moves points along their rays. So the
object's image does not change. The tilt maps planes to planes: 1 / z changes by a linear function
of the image's height.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from xray_addon.camera import Camera

from .decoding import Layers
from .solid import body_ends

# Angles that are tried, radians. A body that needs more stays as it is.
ANGLES = np.radians(np.arange(-80.0, 81.0, 2.0))
# Objects are predicted leaning back more often than forwards, so a positive angle counts for more.
BACKWARDS = 2.2
TILTED = 0.5  # share of the angle by which the layers are tilted; the camera takes the rest
STRIDE = 4  # px between the rays that are used to measure how an object leans
INSIDE = (0.1, 0.5, 0.9)  # where each ray's body is sampled, from its front to its back

Floats = NDArray[np.float64]


def righting_angle(layers: Layers, camera: Camera) -> float:
    """The angle by which the body of `layers` leans, in radians: negative if it leans back.

    Of the angles that right it, the smallest counts, where positive ones count `BACKWARDS` times. 0
    if none of `ANGLES` rights it. camera : of the layers.
    """
    enter, leave = body_ends(layers)
    known = layers.outline & (enter > 0) & (leave > enter)
    rows, columns = np.nonzero(known[::STRIDE, ::STRIDE])
    if len(rows) < 2:
        return 0.0
    rows, columns = rows * STRIDE, columns * STRIDE
    rays = camera.ray_directions(rows, columns)
    front, back = enter[rows, columns], leave[rows, columns]
    depths = np.stack([front + (back - front) * part for part in INSIDE])
    points = rays * depths[..., None]
    weights = np.broadcast_to((back - front) / (back - front).sum() / len(INSIDE), depths.shape)
    leans = np.array([_lean(points, weights, camera, angle) for angle in ANGLES])
    crossed = np.flatnonzero(leans[:-1] * leans[1:] < 0)
    if not len(crossed):
        return 0.0
    step = leans[crossed] / (leans[crossed] - leans[crossed + 1])
    found = ANGLES[crossed] + step * (ANGLES[1] - ANGLES[0])
    return float(found[np.where(found > 0, BACKWARDS * found, -found).argmin()])


def turned(layers: Layers, camera: Camera, angle: float) -> tuple[Layers, Camera]:
    """`layers` and their camera, the object turned by `angle` as of `righting_angle`."""
    if not angle:
        return layers, camera
    rows, columns = np.indices(layers.outline.shape)
    rays = camera.ray_directions(rows, columns)
    points = rays * layers.depth[..., None]  # (L, H, W, 3) in camera axes
    # A plane n . p = d becomes (n - tilt d up) . p = d, with lengths in units of the distance.
    along = (layers.normal * points).sum(axis=-1) / camera.distance
    normal = layers.normal - _tilt(angle) * along[..., None] * np.array([0.0, 1.0, 0.0])
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    depth = layers.depth * _factor(points, camera, angle)
    layers = replace(layers, depth=depth.astype(np.float32), normal=normal.astype(np.float32))
    return layers, _raised(camera, angle)


def _tilt(angle: float) -> float:
    """The part of `angle` that tilts the layers, as depth over height in the image."""
    return math.tan(TILTED * angle)


def _factor(points: NDArray[np.floating], camera: Camera, angle: float) -> Floats:
    """What the depths of `points` (..., 3), in camera axes, are multiplied by (...)."""
    tilt = _tilt(angle) * points[..., 1] / camera.distance
    factor: Floats = 1 / (1 - np.clip(tilt, -0.8, 0.8))
    return factor


def _raised(camera: Camera, angle: float) -> Camera:
    """`camera` with its part of `angle` more elevation."""
    part = (1 - TILTED) * angle
    cosine, sine = math.cos(part), math.sin(part)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[cosine, sine], [-sine, cosine]]  # the viewer is on the -y side
    return replace(camera, camera_to_world=turn @ camera.camera_to_world)


def _lean(points: Floats, weights: Floats, camera: Camera, angle: float) -> float:
    """The covariance of height and distance from the viewer, of `points` turned by `angle`."""
    tilted = points * _factor(points, camera, angle)[..., None]
    axes = _raised(camera, angle).camera_to_world[1:3, :3]
    distance, height = (tilted @ axis for axis in axes)
    height = height - (weights * height).sum()
    return float((weights * height * distance).sum())
