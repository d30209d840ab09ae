"""Corrects the distance of predicted layers from the camera.

In the canonical frame, seen from any distance, the centre of an object's bounding box is as far
from the camera as the origin (`xray_addon.canonical`). The network predicts an object's shape
better than its distance, so the layers are moved along the rays towards that distance. The object's
image does not change.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from xray_addon.camera import Camera

from .decoding import Layers

# Share of the correction that is applied, because the predicted box is not exact. On the scans, 0.5
# to 0.85 are about equally good.
SHARE = 0.7
# The box is upright, but its azimuth is unknown, so the offset is averaged over this many azimuths.
TURNS = 12
OUTLIERS = 0.01  # share of the hits outside the box at each end of each axis


def centered(layers: Layers, camera: Camera) -> Layers:
    """`layers` of `camera`, at the distance that the box of their likely hits implies."""
    points = layers.xray().points(camera).positions
    if not len(points):
        return layers
    away = -camera.position / np.linalg.norm(camera.position)
    offsets = []
    for angle in np.arange(TURNS) * (math.pi / 2 / TURNS):
        cosine, sine = math.cos(angle), math.sin(angle)
        turn = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
        ends = np.quantile(points @ turn, [OUTLIERS, 1 - OUTLIERS], axis=0)
        offsets.append(turn @ ends.mean(axis=0) @ away)
    offset = float(np.mean(offsets))
    factor = 1 - SHARE * offset / (camera.distance + offset)
    return replace(layers, depth=(layers.depth * factor).astype(np.float32))
