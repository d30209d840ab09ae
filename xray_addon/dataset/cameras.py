"""The cameras of a dataset."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..camera import PUBLISHED_FOV_X, Camera
from ..errors import XRayError
from ..files.transforms import read_transforms
from ..settings.dataset import DatasetSettings

PUBLISHED_DISTANCE = 1.2
FRONT = -math.pi / 2  # azimuth of Blender's front view, -y


def item_seed(seed: int, uid: str) -> int:
    """A seed below 2^31 for one item of a dataset; the same on every machine and in any order."""
    digest = hashlib.sha256(f"{seed}\0{uid}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def dataset_cameras(settings: DatasetSettings, uid: str) -> list[Camera]:
    """The cameras around one normalised item, `settings.size` pixels wide.

    They look at the origin from `settings.distance`, or have the poses of a transforms.json.
    Reproducible with the seed and the uid.

    Raises XRayError `missing_file` or `bad_transforms` if the poses cannot be read, and ValueError
    for "scene", because only Blender knows the scene's camera.
    """
    if settings.cameras == "scene":
        raise ValueError("the camera of a scene is known to Blender alone")
    if settings.cameras == "poses":
        posed = read_transforms(settings.poses, settings.size, settings.size)
        if not posed:
            raise XRayError(
                "bad_transforms", f"{settings.poses} has no frames.", "Choose a file with cameras."
            )
        return list(posed.values())
    random = np.random.default_rng(item_seed(settings.seed, uid))
    fov = math.radians(settings.fov)
    if settings.cameras == "hemisphere":
        directions = hemisphere(settings.views, random)
    elif settings.cameras == "sphere":
        directions = sphere(settings.views, random)
    else:
        elevation = np.full(settings.views, math.radians(settings.elevation))
        if settings.cameras == "ring":
            elevation[1::2] *= -1
        azimuth = FRONT + 2 * math.pi * np.arange(settings.views) / settings.views
        directions = _directions(azimuth, elevation)
    eyes = settings.distance * directions
    if settings.jitter:
        shift = random.normal(size=eyes.shape)
        shift *= (random.random(len(eyes)) ** (1 / 3) / np.linalg.norm(shift, axis=1))[:, None]
        eyes = eyes + settings.jitter * settings.distance * shift  # uniform in a ball
    return [
        Camera.look_at(eye, fov_x=fov, width=settings.size, height=settings.size) for eye in eyes
    ]


def placed(cameras: Sequence[Camera], center: NDArray[np.floating], scale: float) -> list[Camera]:
    """`cameras` of the normalised object, moved for an object of size `scale` around `center`.

    The views stay the same; depths are multiplied by `scale`.
    """
    moved = []
    for camera in cameras:
        matrix = camera.camera_to_world.copy()
        matrix[:3, 3] = matrix[:3, 3] * scale + center
        moved.append(replace(camera, camera_to_world=matrix))
    return moved


def hemisphere(count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """(count, 3) random unit directions as published: 0 to 45 degrees above the horizon.

    Azimuth and elevation are uniformly distributed angles.
    """
    angles = random.uniform(size=(count, 2))  # azimuth, elevation of one view after the other
    return _directions(angles[:, 0] * 2 * math.pi, angles[:, 1] * math.pi / 4)


def sphere(count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """(count, 3) random unit directions, uniform over the sphere."""
    draws = random.uniform(size=(count, 2))
    return _directions(draws[:, 0] * 2 * math.pi, np.arcsin(2 * draws[:, 1] - 1))


def _directions(
    azimuth: NDArray[np.floating], elevation: NDArray[np.floating]
) -> NDArray[np.float64]:
    return np.stack(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ],
        axis=1,
    )


def sampled_cameras(
    count: int, seed: int, size: int, *, distance: float = PUBLISHED_DISTANCE
) -> list[Camera]:
    """`count` random cameras as published, `size` x `size` px, around the origin.

    Azimuth is uniform over the circle, elevation uniform over 0 to 45 degrees; the camera looks
    at the origin from `distance` with the published field of view. Reproducible with `seed`.
    """
    eyes = distance * hemisphere(count, np.random.default_rng(seed))
    return [Camera.look_at(eye, fov_x=PUBLISHED_FOV_X, width=size, height=size) for eye in eyes]
