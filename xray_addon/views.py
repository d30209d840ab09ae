"""Where the cameras of a dataset stand."""

from __future__ import annotations

import math

import numpy as np

from .camera import PUBLISHED_FOV_X, Camera

PUBLISHED_DISTANCE = 1.2


def sampled_cameras(
    count: int, seed: int, size: int, *, distance: float = PUBLISHED_DISTANCE
) -> list[Camera]:
    """`count` cameras by the published rule, `size` x `size` px, around the origin.

    Azimuth is uniform over the circle, elevation uniform over 0 to 45 degrees; the camera looks
    at the origin from `distance` with the published field of view. Reproducible with `seed`.
    """
    random = np.random.default_rng(seed)
    cameras = []
    for _ in range(count):
        azimuth, elevation = random.uniform(0, 2 * math.pi), random.uniform(0, math.pi / 4)
        eye = distance * np.array(
            [
                math.cos(elevation) * math.cos(azimuth),
                math.cos(elevation) * math.sin(azimuth),
                math.sin(elevation),
            ]
        )
        cameras.append(Camera.look_at(eye, fov_x=PUBLISHED_FOV_X, width=size, height=size))
    return cameras
