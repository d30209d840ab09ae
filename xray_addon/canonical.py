"""The frames of generators: where the object of a reference image is assumed to be.

A single image does not show how large or how far away its object is, so both are fixed by
convention. Each system has its own `Frame`. X-Ray's own generator, training and the evaluation use
the canonical one.

The camera is `distance` from the origin and looks at it; the image is square, with a horizontal
field of view of `fov_x`. The centre of the object's bounding box lies in the plane through the
origin that faces the camera. The object is shifted in that plane and scaled until its silhouette's
bounding box is centred in the image and the box's longer side spans `fill` of the image. The image
intake crops photos by the same rule. Depths are kept between `near` and `far`.

The canonical field of view is that of the published data (35 mm lens on 32 mm). The camera's
elevation is part of the frame: world z is up and the viewer is on the -y side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

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


@dataclass(frozen=True)
class Frame:
    """The position of a system's object relative to its image's camera.

    distance : from the camera to the origin. fov_x : field of view of the square image, radians.
    fill : the longer side of the silhouette's bounding box, as a share of the image's side.
    near, far : range of the object's depths.
    """

    distance: float
    fov_x: float
    fill: float
    near: float
    far: float

    @property
    def distance_in_lengths(self) -> float:
        """The camera's distance in lengths of the object across the image."""
        return 1 / (2 * self.fill * math.tan(self.fov_x / 2))

    def from_afar(self, times: float) -> Frame:
        """The frame of a camera `times` as far away, with a lens that keeps the object's size."""
        return Frame(
            self.distance * times,
            2 * math.atan(math.tan(self.fov_x / 2) / times),
            self.fill,
            self.near + self.distance * (times - 1),
            self.far + self.distance * (times - 1),
        )

    def camera(self, size: int, elevation: float = 0.0, roll: float = 0.0) -> Camera:
        """The frame's camera: `size` x `size` px, `elevation` in radians above the horizon.

        roll : the angle by which upright objects lean to the left in the image, radians.
        """
        eye = (0.0, -self.distance * math.cos(elevation), self.distance * math.sin(elevation))
        camera = Camera.look_at(eye, fov_x=self.fov_x, width=size, height=size)
        matrix = camera.camera_to_world.copy()
        matrix[:3, :3] = matrix[:3, :3] @ _about_view(roll).T
        return replace(camera, camera_to_world=matrix)


CANONICAL = Frame(DISTANCE, FOV_X, FILL, NEAR, FAR)


def canonical_camera(size: int, elevation: float = 0.0, roll: float = 0.0) -> Camera:
    """The camera of the canonical frame: `size` x `size` px, `elevation` and `roll` in radians."""
    return CANONICAL.camera(size, elevation, roll)


def change_of_depths(
    camera: Camera, other: Camera, rows: NDArray[np.integer], columns: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Factors and offsets that turn depths of `camera` into those of `other`, at the same pixels.

    Points remain as far in front of or behind the plane through the origin that faces the camera.
    The cameras look at the origin. rows, columns : of the pixels, of one shape; the factors and
    offsets have that shape.
    """
    cosine, other_cosine = (-c.ray_directions(rows, columns)[..., 2] for c in (camera, other))
    return cosine / other_cosine, (other.distance - camera.distance) / other_cosine


def _about_view(roll: float) -> NDArray[np.float64]:
    """The rotation (3, 3), in camera axes, that makes objects lean to the left in the image."""
    cosine, sine = math.cos(roll), math.sin(roll)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def place(
    surface: Surface,
    azimuth: float,
    elevation: float,
    *,
    roll: float = 0.0,
    frame: Frame = CANONICAL,
) -> tuple[NDArray[np.float64], float] | None:
    """The transform that places `surface` (z up) in `frame`, seen from the given side.

    azimuth, elevation : of the viewer around the object, in radians; azimuth 0 is the -y side.
    roll : the angle by which the object leans to the left in the image, radians.

    Returns the (4, 4) matrix for `Surface.transformed` and the length of the object's longest side
    in the frame. Returns None if the view does not fit into the frame: an object that is much
    longer towards the viewer than across would be nearer than the frame's `near`.
    """
    low, high = surface.bounds
    longest = surface.longest_side
    used = surface.vertices[np.unique(surface.faces)].astype(np.float64)
    used = used[np.isfinite(used).all(axis=1)]
    cosine, sine = math.cos(azimuth), math.sin(azimuth)
    turn = np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    camera = frame.camera(2, elevation)
    axes = camera.camera_to_world[:3, :3]
    turn = axes @ _about_view(roll) @ axes.T @ turn
    points = ((used - (low + high) / 2) / longest) @ turn.T @ axes  # camera axes, size 1
    target = frame.fill * 2 * math.tan(frame.fov_x / 2)
    # The largest scale at which no point is nearer than `near`.
    limit = (frame.distance - frame.near) / max(float(points[:, 2].max()), 1e-9)
    scale, shift = min(1.0, limit), np.zeros(2)
    for _ in range(_ROUNDS):
        ahead = frame.distance - scale * points[:, 2]
        seen = (scale * points[:, :2] + shift) / ahead[:, None]
        first, last = seen.min(axis=0), seen.max(axis=0)
        # Points in front of the middle move farther in the image than points behind it, so full
        # steps can oscillate.
        shift = shift - 0.7 * (first + last) / 2 * frame.distance
        scale *= (target / float((last - first).max())) ** 0.7
        if scale > limit:
            return None
    ahead = frame.distance - scale * points[:, 2]
    if ahead.max() > frame.far:
        return None
    matrix = np.eye(4)
    matrix[:3, :3] = turn * (scale / longest)
    in_plane = axes[:, 0] * shift[0] + axes[:, 1] * shift[1]
    matrix[:3, 3] = in_plane - matrix[:3, :3] @ ((low + high) / 2)
    return matrix, scale
