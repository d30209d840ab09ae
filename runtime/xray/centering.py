"""Puts predicted layers where the canonical frame has them.

In the frame the middle of an object's bounding box is as far from the camera as the origin
(`xray_addon.canonical`). Networks tell how deep an object is better than how far away, so their
layers are moved along the rays until that holds, which changes nothing of what the image shows.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from xray_addon.camera import Camera
from xray_addon.canonical import DISTANCE

from .decoding import Layers

# Of the way: the box of what is predicted is not quite the true one. On the scans anything from
# half to .85 is about as good.
SHARE = 0.7
# The box's sides are upright, but the image does not tell how it is turned, so that its middle is
# the mean over this many turns.
TURNS = 12
OUTLIERS = 0.01  # share of the hits, at each end of each axis, that the box leaves out


def centered(layers: Layers, camera: Camera) -> Layers:
    """`layers`, which `camera` sees, at another distance. Their likely hits decide."""
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
    factor = 1 - SHARE * offset / (DISTANCE + offset)
    return replace(layers, depth=(layers.depth * factor).astype(np.float32))
