"""Sets a leaning object upright.

An image does not show well how far a tall object's top is from the camera. Where the network is
unsure, it predicts something between standing and lying, so figures lean back. Most objects are
balanced: about as much of them is in front of their middle at the top as at the bottom. So the
layers are tilted until the body's height and its depth towards the viewer are not correlated.

The tilt moves points along their rays, and the image of the object does not change. It maps planes
to planes: 1 / z changes by a linear function of the image's height.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from xray_addon.camera import Camera

from .decoding import Layers
from .solid import body_ends

# Tilts that are tried, depth over height. A body that needs more stays as it is.
TILTS = np.linspace(-1.2, 1.2, 49)
STRIDE = 4  # px between the rays that are used to measure how an object leans
INSIDE = (0.1, 0.5, 0.9)  # where each ray's body is sampled, from its front to its back

Floats = NDArray[np.float64]


def righting_tilt(layers: Layers, camera: Camera) -> float:
    """The smallest tilt that rights the body of `layers`: negative if it leans back, 0 if none of
    `TILTS` rights it. camera : of the layers."""
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
    leans = np.array([_lean(points, weights, camera, tilt) for tilt in TILTS])
    crossed = np.flatnonzero(leans[:-1] * leans[1:] < 0)
    if not len(crossed):
        return 0.0
    step = leans[crossed] / (leans[crossed] - leans[crossed + 1])
    found = TILTS[crossed] + step * (TILTS[1] - TILTS[0])
    return float(found[np.abs(found).argmin()])


def tilted(layers: Layers, camera: Camera, tilt: float) -> Layers:
    """`layers` of `camera`, tilted. tilt : depth over height in the image, as of
    `righting_tilt`."""
    if not tilt:
        return layers
    rows, columns = np.indices(layers.outline.shape)
    rays = camera.ray_directions(rows.ravel(), columns.ravel()).reshape(*rows.shape, 3)
    points = rays * layers.depth[..., None]  # (L, H, W, 3) in camera axes
    # A plane n . p = d becomes (n - tilt d up) . p = d, with lengths in units of the distance.
    along = (layers.normal * points).sum(axis=-1) / camera.distance
    normal = layers.normal - tilt * along[..., None] * np.array([0.0, 1.0, 0.0])
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    depth = layers.depth * _factor(points, tilt, camera)
    return replace(layers, depth=depth.astype(np.float32), normal=normal.astype(np.float32))


def _factor(points: NDArray[np.floating], tilt: float, camera: Camera) -> Floats:
    """What the depths of `points` (..., 3), in camera axes, are multiplied by (...)."""
    factor: Floats = 1 / (1 - np.clip(tilt * points[..., 1] / camera.distance, -0.8, 0.8))
    return factor


def _lean(points: Floats, weights: Floats, camera: Camera, tilt: float) -> float:
    """The covariance of height and horizontal distance from the viewer, of tilted `points`."""
    tilted = points * _factor(points, tilt, camera)[..., None]
    elevation = math.asin(camera.position[2] / camera.distance)
    sine, cosine = math.sin(elevation), math.cos(elevation)
    up, away = tilted[..., 1], -tilted[..., 2]
    height, distance = up * cosine - away * sine, up * sine + away * cosine
    height = height - (weights * height).sum()
    return float((weights * height * distance).sum())
