"""Vertical mirror planes of objects: what the network learns of them, and the plane that it means.

A plane is told by the azimuth of its normal in the canonical frame (`xray_addon.canonical`), 0 to
pi: 0 where the plane stands along the view and mirrors left and right. A mirror plane of an object
goes through the centroid of its area, so the azimuth is all that training has to know.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from xray_addon.surface import Surface

Floats = NDArray[np.float32]

MIRROR_PLANES = 36  # azimuths that samples have labels for
UNKNOWN = np.full(MIRROR_PLANES, -1, dtype=np.float32)  # labels of objects that are not known
_TRIED = 72  # that an object is tried at
_POINTS, _MIRRORED = 1500, 250
SURE = 0.5  # the likelihood from which on a plane is used
# Where denormals are flushed to zero, a k-d tree of many coordinates that are 0 never ends.
_OFF_ZERO = 10.0
# A mean distance (share of the longest side) between an object and its mirror image beyond which
# there is no symmetry to speak of, and how far an azimuth's likelihood spreads to its neighbours.
_TOLERANCE = 0.008
_SPREAD = math.radians(4)


def azimuths(count: int) -> Floats:
    """The azimuths (count,) in radians that a network with `count` outputs tells of."""
    return (np.arange(count, dtype=np.float32) * (math.pi / count)).astype(np.float32)


def likenesses(surface: Surface, seed: int = 0) -> Floats:
    """How alike `surface` (z up) and its mirror image are at 72 azimuths: 0 not at all, 1 equal.

    From points on the surface: 1 where their mean distance to the mirror image is what it is to the
    surface itself, 0.37 at 0.8 % of the longest side more.
    """
    points, others = surface.sample(_POINTS, seed), surface.sample(_MIRRORED, seed + 1)
    corners = surface.vertices[surface.faces].astype(np.float64)
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    known = np.isfinite(area)
    centre = np.average(corners[known].mean(axis=1), axis=0, weights=area[known])
    angle = azimuths(_TRIED)
    normal = np.stack([np.cos(angle), np.sin(angle), np.zeros(_TRIED)], axis=1)
    points, others = ((p - centre) / surface.longest_side for p in (points, others))
    tree = cKDTree(points + _OFF_ZERO)
    least = tree.query(others + _OFF_ZERO)[0].mean()
    turned = others[:, None] - 2 * (others @ normal.T)[..., None] * normal  # (P, 72, 3)
    excess = tree.query(turned + _OFF_ZERO)[0].mean(axis=0) - least
    return np.exp(-((np.maximum(excess, 0) / _TOLERANCE) ** 2)).astype(np.float32)


def labels(likeness: Floats, azimuth: float, count: int) -> Floats:
    """What a network with `count` outputs is to say, (count,) from 0 to 1, of an object of the
    given `likenesses` that is seen from `azimuth` (radians, as in `place`)."""
    apart = azimuths(count)[:, None] - (azimuths(len(likeness)) - azimuth)
    apart = (apart + math.pi / 2) % math.pi - math.pi / 2
    return (likeness * np.exp(-0.5 * (apart / _SPREAD) ** 2)).max(axis=1).astype(np.float32)


def mirrored(vertices: NDArray[np.float64], azimuth: float) -> NDArray[np.float64]:
    """`vertices` (N, 3) of a symmetric object as its vertical mirror plane, whose normal
    has the `azimuth` in radians, shows them. The plane goes through the middle of the object."""
    normal = np.array([math.cos(azimuth), math.sin(azimuth), 0.0])
    along = vertices @ normal
    middle = (along.min() + along.max()) / 2
    return vertices - 2 * np.outer(along - middle, normal)


def mirror_azimuth(likelihood: Floats) -> float | None:
    """The azimuth, in radians, of the likeliest mirror plane, or None if none is likely enough.

    likelihood : (P,), 0 to 1, of a plane at each of `azimuths`. Between two of them the maximum is
    that of the parabola through it and its neighbours.
    """
    best = int(likelihood.argmax())
    if likelihood[best] < SURE:
        return None
    count = len(likelihood)
    before, here, after = likelihood[[(best - 1) % count, best, (best + 1) % count]]
    bend = before - 2 * here + after
    shift = float((before - after) / (2 * bend)) if bend < 0 else 0.0
    return (best + shift) * math.pi / count
