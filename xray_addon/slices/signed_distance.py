"""Signed distances to any surface: exact lengths, with a sign that is robust to holes.

The winding number decides whether a point is inside (Jacobson et al., "Robust Inside-Outside
Segmentation using Generalized Winding Numbers", SIGGRAPH 2013). It is robust to holes in scans and
to overlapping pieces. Distant faces are grouped as in Barill et al., "Fast Winding Numbers for
Soups and Clouds" (SIGGRAPH 2018).

`samples` draws the points that Slice3D (CVPR 2024) is trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import XRayError
from ..surface import Surface

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# A group of faces farther away than this many of its radii is treated as one face.
FAR = 3.0
LEAF = 8  # faces in the smallest groups
# Pairs of a point and a group or face that are processed at once.
PAIRS_AT_ONCE = 1 << 19
# The published surfaces lie this far outside the real ones: Slice3D subtracts it from distances.
PUBLISHED_LEVEL = 0.003
# A quarter of the published samples lies in each of these bands of distance to the published
# surface.
PUBLISHED_BANDS = (-0.1, -0.03, 0.0, 0.03, 0.1)
# Most rounds of drawing points to fill all bands, and rounds after which one must be inside.
_ROUNDS = 12
_FIRST_ROUNDS = 2
_CLEARLY_INSIDE = 0.55


@dataclass(frozen=True, eq=False)
class _Group:
    """One level of a hierarchy of neighbouring faces; group i has children 2 i and 2 i + 1.

    low, high (G, 3) : the box around the faces. some (G, 3) : a point on one of them.
    area (G, 3) : sum of their area vectors. middle (G, 3) : area-weighted mean of their centroids.
    """

    low: Floats
    high: Floats
    some: Floats
    area: Floats
    middle: Floats


class SignedDistance:
    """The distance to `surface` at any point, negative inside.

    Faces without area and faces with vertices that are not finite are ignored.

    Raises XRayError `no_surface` if no face is left.
    """

    def __init__(self, surface: Surface) -> None:
        corners = surface.vertices[surface.faces].astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2
            size = np.linalg.norm(area, axis=1)
        usable = np.isfinite(size) & (size > 0)
        if not usable.any():
            raise XRayError(
                "no_surface",
                "The surface has no faces with area, so there is no distance to it.",
                "Choose an object that has faces.",
            )
        corners, area, size = corners[usable], area[usable], size[usable]
        depth = max(0, int(np.ceil(np.log2(len(corners) / LEAF))))
        order = _grouped(corners.mean(axis=1), depth)
        # Groups of the last level have the same length; shorter ones are padded with -1.
        self._members = order.reshape(1 << depth, -1)
        self._corners = corners
        self._levels = _levels(corners, area, size, self._members)
        self.bounds: Floats = np.stack([corners.min(axis=(0, 1)), corners.max(axis=(0, 1))])
        self._area = size

    def __call__(self, points: ArrayLike) -> Floats:
        """Signed distance (N,) at points (N, 3)."""
        places = _points(points)
        inside = self.winding(places) > 0.5
        return np.where(inside, -1.0, 1.0) * self.distance(places)

    def winding(self, points: ArrayLike) -> Floats:
        """Winding number (N,) at points (N, 3): 1 inside a closed surface, 0 outside.

        In between near openings. Accurate to about 0.03.
        """
        return _in_parts(self._winding, _points(points))

    def distance(self, points: ArrayLike) -> Floats:
        """Distance (N,) at points (N, 3); exact."""
        return _in_parts(self._distance, _points(points))

    def on_surface(self, count: int, random: np.random.Generator) -> Floats:
        """Random points (count, 3), uniform over the area."""
        face = random.choice(len(self._area), size=count, p=self._area / self._area.sum())
        u, v = random.random((2, count, 1))
        outside = u + v > 1
        u, v = np.where(outside, 1 - u, u), np.where(outside, 1 - v, v)
        a, b, c = self._corners[face].swapaxes(0, 1)
        return a + u * (b - a) + v * (c - a)

    def _winding(self, points: Floats) -> Floats:
        total = np.zeros(len(points))
        point, group = np.arange(len(points)), np.zeros(len(points), dtype=np.int64)
        for number, level in enumerate(self._levels):
            towards = level.middle[group] - points[point]
            length = np.linalg.norm(towards, axis=1)
            radius = np.linalg.norm(level.high - level.low, axis=1) / 2
            far = length > FAR * radius[group]
            share = np.einsum("ij,ij->i", level.area[group[far]], towards[far])
            np.add.at(total, point[far], share / (4 * np.pi * length[far] ** 3))
            point, group = point[~far], group[~far]
            if number + 1 < len(self._levels):
                point, group = _halved(point, group)
        for part in _parts(len(point) * self._members.shape[1], self._members.shape[1]):
            face = self._members[group[part]]
            owner = np.broadcast_to(point[part][:, None], face.shape)[face >= 0]
            angle = _solid_angle(self._corners[face[face >= 0]] - points[owner][:, None])
            np.add.at(total, owner, angle / (4 * np.pi))
        return total

    def _distance(self, points: Floats) -> Floats:
        point, group = np.arange(len(points)), np.zeros(len(points), dtype=np.int64)
        nearest = np.full(len(points), np.inf)
        for number, level in enumerate(self._levels):
            np.minimum.at(nearest, point, _length(points[point] - level.some[group]))
            least = _to_box(points[point], level.low[group], level.high[group])
            kept = least <= nearest[point]
            point, group, least = point[kept], group[kept], least[kept]
            if number + 1 < len(self._levels):
                point, group = _halved(point, group)
        # The most likely groups first, so that most of the others can be skipped.
        first = np.lexsort((least, point))
        leads = np.ones(len(first), dtype=bool)
        leads[1:] = point[first[1:]] != point[first[:-1]]
        self._measure(points, point[first[leads]], group[first[leads]], nearest)
        rest = first[~leads]
        rest = rest[least[rest] <= nearest[point[rest]]]
        self._measure(points, point[rest], group[rest], nearest)
        return nearest

    def _measure(self, points: Floats, point: Ints, group: Ints, nearest: Floats) -> None:
        """Update `nearest` with the distances of points (K,) to the faces of groups (K,)."""
        for part in _parts(len(point) * self._members.shape[1], self._members.shape[1]):
            face = self._members[group[part]]
            owner = np.broadcast_to(point[part][:, None], face.shape)[face >= 0]
            length = _to_triangle(points[owner], self._corners[face[face >= 0]])
            np.minimum.at(nearest, owner, length)


def samples(surface: Surface, count: int = 16_384, seed: int = 0) -> NDArray[np.float32]:
    """Random points near `surface`: (count, 4) x, y, z, signed distance.

    Each of the `PUBLISHED_BANDS` around the published surface gets the same number of points. If
    the object is too thin for a band, the other bands get more. The bands are meant for a surface
    whose box has a diagonal of 1, see `slices.placement`.

    Raises XRayError `no_surface`, and `encloses_nothing` if no point is inside.
    """
    field = SignedDistance(surface)
    random = np.random.default_rng(seed)
    bands = len(PUBLISHED_BANDS) - 1
    wanted = [count // bands] * bands
    wanted[-1] += count - sum(wanted)
    found: list[list[Floats]] = [[] for _ in wanted]
    have = np.zeros(len(wanted), dtype=int)
    for number in range(_ROUNDS):
        lacking = np.flatnonzero(have < wanted)
        if not len(lacking):
            break
        points = _near(field, lacking, 2 * count // _ROUNDS, random)
        values = field(points)
        place = np.searchsorted(PUBLISHED_BANDS, values - PUBLISHED_LEVEL, side="right") - 1
        for band in range(bands):
            chosen = np.column_stack([points, values])[place == band]
            found[band].append(chosen)
            have[band] += len(chosen)
        if number + 1 == _FIRST_ROUNDS:
            _refuse_open(field, np.concatenate([c for part in found for c in part]))
    pools = [np.concatenate(part) for part in found]
    taken = [pool[:number] for pool, number in zip(pools, wanted, strict=True)]
    spare = np.concatenate([p[n:] for p, n in zip(pools, wanted, strict=True)])
    short = count - sum(map(len, taken))
    if short > len(spare):
        inside = np.concatenate(pools)
        spare = np.concatenate([spare, random.permutation(inside)[: short - len(spare)]])
    result = np.concatenate([*taken, random.permutation(spare)[:short]])
    return random.permutation(result).astype(np.float32)


def _refuse_open(field: SignedDistance, found: Floats) -> None:
    """Raise XRayError `encloses_nothing` unless some of the samples (N, 4) are clearly inside."""
    inside = found[found[:, 3] < 0, :3]
    # Behind an open sheet, the winding number is at most 0.5, apart from inaccuracy.
    if len(inside) and field.winding(inside).max() > _CLEARLY_INSIDE:
        return
    raise XRayError(
        "encloses_nothing",
        "The surface encloses nothing: no point near it is inside.",
        "Close the mesh, or recalculate its normals so that they point outwards.",
    )


def _near(
    field: SignedDistance,
    lacking: Ints,
    count: int,
    random: np.random.Generator,
) -> Floats:
    """Candidates: points on the surface, moved by about the distances of the unfilled bands."""
    band = random.choice(lacking, size=count)
    edges = np.array(PUBLISHED_BANDS) + PUBLISHED_LEVEL
    low, high = edges[band], edges[band + 1]
    reach = np.abs(random.uniform(low, high))
    direction = random.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return field.on_surface(count, random) + direction * reach[:, None]


def _grouped(centres: Floats, depth: int) -> Ints:
    """Faces in 2^depth groups of neighbours, all of the same length; -1 means no face."""
    size = -(-len(centres) >> depth) if depth else len(centres)
    groups = np.full((1, size << depth), -1, dtype=np.int64)
    groups[0, : len(centres)] = np.arange(len(centres))
    for _ in range(depth):
        # Each group is split at the median along its longest axis.
        places = centres[groups]
        places[groups < 0] = np.nan
        extent = np.nanmax(places, axis=1) - np.nanmin(places, axis=1)
        axis = extent.argmax(axis=1)
        along = np.take_along_axis(places, axis[:, None, None], axis=2)[..., 0]
        order = np.argsort(np.where(np.isnan(along), np.inf, along), axis=1, kind="stable")
        groups = np.take_along_axis(groups, order, axis=1)
        # Padding is distributed evenly, so that every group has a face.
        groups = _shared_out(groups)
    return groups


def _shared_out(groups: Ints) -> Ints:
    """Split each row (G, 2 S) into two (2 G, S): each gets half of the faces, then padding."""
    rows, places = groups.shape
    half = places // 2
    count = (groups >= 0).sum(axis=1)
    first = (count + 1) // 2
    place = np.arange(half)
    index = np.stack([np.broadcast_to(place, (rows, half)), first[:, None] + place], axis=1)
    limit = np.stack([first, count], axis=1)[:, :, None]
    taken = np.take_along_axis(
        groups[:, None, :].repeat(2, axis=1), np.minimum(index, places - 1), axis=2
    )
    return np.where(index < limit, taken, -1).reshape(2 * rows, half)


def _levels(corners: Floats, area: Floats, size: Floats, members: Ints) -> list[_Group]:
    """The groups of every level, starting with the one that contains all faces."""
    there = members >= 0
    weight = np.where(there, size[members], 0.0)
    centroid = corners.mean(axis=1)
    some = centroid[members[:, 0]]
    low = np.where(there[..., None], corners[members].min(axis=2), np.inf).min(axis=1)
    high = np.where(there[..., None], corners[members].max(axis=2), -np.inf).max(axis=1)
    vector = (area[members] * there[..., None]).sum(axis=1)
    moment = (centroid[members] * weight[..., None]).sum(axis=1)
    total = weight.sum(axis=1)
    levels = []
    while True:
        levels.append(_Group(low, high, some, vector, moment / total[:, None]))
        if len(low) == 1:
            return levels[::-1]
        some = some[::2]
        low, high = np.minimum(low[::2], low[1::2]), np.maximum(high[::2], high[1::2])
        vector, moment = vector[::2] + vector[1::2], moment[::2] + moment[1::2]
        total = total[::2] + total[1::2]


def _halved(point: Ints, group: Ints) -> tuple[Ints, Ints]:
    """Pairs of points and groups, with each group replaced by its two children."""
    return np.repeat(point, 2), (2 * group[:, None] + np.arange(2)).ravel()


def _in_parts(work: Callable[[Floats], Floats], points: Floats) -> Floats:
    # About fifty groups are near a point at a time.
    step = max(1, PAIRS_AT_ONCE // 64)
    parts = [work(points[start : start + step]) for start in range(0, len(points), step)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _parts(pairs: int, width: int) -> list[slice]:
    """Slices of rows with `width` pairs each that together cover all `pairs`."""
    step = max(1, PAIRS_AT_ONCE // width)
    return [slice(start, start + step) for start in range(0, pairs // width, step)]


def _length(vectors: Floats) -> Floats:
    """Lengths (K,) of vectors (K, 3)."""
    return np.sqrt(np.einsum("ij,ij->i", vectors, vectors))


def _to_box(points: Floats, low: Floats, high: Floats) -> Floats:
    """Distance (K,) from points (K, 3) to boxes; 0 inside."""
    return _length(np.maximum(np.maximum(low - points, points - high), 0.0))


def _solid_angle(corners: Floats) -> Floats:
    """Solid angles (K,) of triangles (K, 3, 3) at the origin (Van Oosterom and Strackee 1983)."""
    a, b, c = corners.swapaxes(0, 1)
    la, lb, lc = (np.linalg.norm(v, axis=1) for v in (a, b, c))
    volume = np.einsum("ij,ij->i", a, np.cross(b, c))
    ab, bc, ca = (np.einsum("ij,ij->i", p, q) for p, q in ((a, b), (b, c), (c, a)))
    return 2 * np.arctan2(volume, la * lb * lc + ab * lc + bc * la + ca * lb)


def _to_triangle(points: Floats, corners: Floats) -> Floats:
    """Distance (K,) from points (K, 3) to triangles (K, 3, 3)."""
    a, b, c = corners.swapaxes(0, 1)
    normal = np.cross(b - a, c - a)
    length = np.linalg.norm(normal, axis=1)
    height = np.einsum("ij,ij->i", points - a, normal) / length
    above = np.ones(len(points), dtype=bool)
    edges = np.full(len(points), np.inf)
    for start, stop in ((a, b), (b, c), (c, a)):
        along, offset = stop - start, points - start
        side = np.einsum("ij,ij->i", np.cross(normal, along), offset)
        above &= side >= 0
        share = np.einsum("ij,ij->i", along, offset) / np.einsum("ij,ij->i", along, along)
        off = offset - np.clip(share, 0.0, 1.0)[:, None] * along
        edges = np.minimum(edges, np.einsum("ij,ij->i", off, off))
    return np.where(above, np.abs(height), np.sqrt(edges))


def _points(points: ArrayLike) -> Floats:
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 3 or not np.isfinite(array).all():
        raise ValueError(f"points must be finite and (N, 3), got {array.shape}")
    return array
