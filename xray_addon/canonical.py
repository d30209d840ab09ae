"""The frame that generators work in: where the object of a reference image is taken to be.

A single image does not tell how large or how far its object is, so both are fixed by convention.
The camera sits `DISTANCE` from the origin and looks at it with a horizontal field of view of
`FOV_X` (35 mm lens on 32 mm, as in the published data) at a square image. The object's bounding
box centre lies in the plane through the origin that faces the camera; the object is shifted in
that plane and scaled until the bounding box of its silhouette is centred in the image and the
box's longer side spans `FILL` of the image. The image intake crops photos by the same rule.
Depths are kept between `NEAR` and `FAR`.

The camera's elevation is part of the frame: world z is up and the viewer is on the -y side.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .camera import PUBLISHED_FOV_X, Camera
from .surface import Surface

FOV_X = PUBLISHED_FOV_X
DISTANCE = 1.5
FILL = 0.85
NEAR = 0.5
FAR = 2.5
_ROUNDS = 30


def canonical_camera(size: int, elevation: float = 0.0) -> Camera:
    """The camera of the frame: `size` x `size` px, `elevation` in radians above the horizon."""
    eye = (0.0, -DISTANCE * math.cos(elevation), DISTANCE * math.sin(elevation))
    return Camera.look_at(eye, fov_x=FOV_X, width=size, height=size)


def place(
    surface: Surface, azimuth: float, elevation: float
) -> tuple[NDArray[np.float64], float] | None:
    """Where `surface` (z up) goes in the frame when seen from this side.

    azimuth, elevation : of the viewer around the object, in radians; azimuth 0 is the -y side.

    Returns the (4, 4) matrix for `Surface.transformed` and the size that the object's longest
    side has in the frame, or None where the view has no place in the frame: an object much
    longer towards the viewer than across would reach nearer than `NEAR`.
    """
    low, high = surface.bounds
    longest = surface.longest_side
    used = surface.vertices[np.unique(surface.faces)].astype(np.float64)
    used = used[np.isfinite(used).all(axis=1)]
    cosine, sine = math.cos(azimuth), math.sin(azimuth)
    turn = np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    camera = canonical_camera(2, elevation)
    axes = camera.camera_to_world[:3, :3]
    points = ((used - (low + high) / 2) / longest) @ turn.T @ axes  # camera axes, size 1
    target = FILL * 2 * math.tan(FOV_X / 2)
    # The largest scale at which no point comes nearer than NEAR.
    limit = (DISTANCE - NEAR) / max(float(points[:, 2].max()), 1e-9)
    scale, shift = min(1.0, limit), np.zeros(2)
    for _ in range(_ROUNDS):
        ahead = DISTANCE - scale * points[:, 2]
        seen = (scale * points[:, :2] + shift) / ahead[:, None]
        first, last = seen.min(axis=0), seen.max(axis=0)
        # Points before the middle move farther in the image than points behind it, so full
        # steps can swing.
        shift = shift - 0.7 * (first + last) / 2 * DISTANCE
        scale *= (target / float((last - first).max())) ** 0.7
        if scale > limit:
            return None
    ahead = DISTANCE - scale * points[:, 2]
    if ahead.max() > FAR:
        return None
    matrix = np.eye(4)
    matrix[:3, :3] = turn * (scale / longest)
    in_plane = axes[:, 0] * shift[0] + axes[:, 1] * shift[1]
    matrix[:3, 3] = in_plane - matrix[:3, :3] @ ((low + high) / 2)
    return matrix, scale
