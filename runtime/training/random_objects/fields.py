"""Signed distance fields of simple solids: negative inside, in the unit of the points (..., 3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]
Values = Sequence[float] | Array


def rotation(random: np.random.Generator, spread: float) -> Array:
    """A random rotation (3, 3), by an angle of the standard deviation `spread`, radians."""
    axis = random.normal(size=3)
    turn = axis / np.linalg.norm(axis) * random.normal(0, spread)
    return np.asarray(Rotation.from_rotvec(turn).as_matrix())


def around(points: Array, axis: int = 2) -> Array:
    """The distance from a coordinate axis."""
    return np.linalg.norm(np.delete(points, axis, axis=-1), axis=-1)


def overlap(fields: Sequence[Array], rounding: float = 0.0) -> Array:
    """Where all fields overlap, with rounded edges."""
    distances = np.stack(fields, axis=-1) + rounding
    outside = np.linalg.norm(np.maximum(distances, 0), axis=-1)
    return np.asarray(outside + np.minimum(distances.max(axis=-1), 0) - rounding)


def union(first: Array, second: Array, smoothness: float) -> Array:
    """Either of two fields; they blend over the length `smoothness` (a polynomial minimum)."""
    if smoothness <= 0:
        return np.minimum(first, second)
    share = np.maximum(smoothness - np.abs(first - second), 0) / smoothness
    return np.minimum(first, second) - share * share * smoothness / 4


def ellipsoid(points: Array, radii: Values) -> Array:
    """About the distance from an ellipsoid around the origin."""
    radii = np.asarray(radii)
    scaled = np.linalg.norm(points / radii, axis=-1)
    slope = np.linalg.norm(points / radii**2, axis=-1)
    return scaled * (scaled - 1) / np.maximum(slope, 1e-9)


def capsule(points: Array, start: Values, end: Values, radius: float, last: float) -> Array:
    """A limb from `start` to `end` whose radius changes to `last`."""
    start, along = np.asarray(start, float), np.subtract(end, start)
    share = np.clip((points - start) @ along / max(float(along @ along), 1e-9), 0, 1)
    gap = np.linalg.norm(points - start - share[..., None] * along, axis=-1)
    return gap - (radius + (last - radius) * share)


def box(points: Array, half: Values, rounding: float = 0.0) -> Array:
    """A box around the origin. half : of its sides."""
    return overlap(list(np.moveaxis(np.abs(points) - np.asarray(half), -1, 0)), rounding)


def cylinder(
    points: Array,
    radius: float,
    half: float,
    *,
    top: float | None = None,
    axis: int = 2,
    rounding: float = 0.0,
) -> Array:
    """A cylinder around the origin, or a cone whose radius becomes `top`. half : of its height."""
    height = points[..., axis]
    top = radius if top is None else top
    there = radius + (top - radius) * np.clip((height / half + 1) / 2, 0, 1)
    return overlap((around(points, axis) - there, np.abs(height) - half), rounding)


def torus(points: Array, radius: float, thickness: float, axis: int = 2) -> Array:
    """A ring around a coordinate axis. thickness : the radius of its tube."""
    return np.hypot(around(points, axis) - radius, points[..., axis]) - thickness
