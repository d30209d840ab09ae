"""Reconstructs one mesh from an X-Ray by linking the hits of neighbouring rays.

Every hit becomes a vertex, so the mesh passes exactly through the captured surface. A hit either
enters a solid or leaves it. The sorted hits of each pair of neighbouring rays are aligned at
minimum cost. Hits of the same kind are *linked*. An entering and a leaving hit that are adjacent on
one ray, and have no counterpart on the next, are *folded* together over a new rim vertex between
the rays. A hit without a connection is an open border. In each cell of 2x2 pixels a hit has at
most two connections, one along either side of the cell. The connections therefore form closed
cycles, which become polygons, and open paths, which become the ragged border of an open surface.
Every link and every half fold belongs to the two cells beside it. If all hits are linked or
folded, the mesh is closed and manifold by construction.

The method stitches depth maps (Turk and Levoy, "Zippered Polygon Meshes from Range Images",
SIGGRAPH 1994) of layered depth images (Shade et al., SIGGRAPH 1998), but uses the alignment of
Needleman and Wunsch (1970) instead of a depth threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .surface import Surface

if TYPE_CHECKING:
    from .camera import Camera
    from .xray import XRay

# Tolerances, in pixels (the width of a pixel at the hit's depth) unless noted.

# Cost of leaving a hit unconnected. A sphere's silhouette folds at a cost of up to 4 pixels, and a
# border costs this amount on both sides of a step. So 2.5 closes silhouettes, and keeps steps of
# more than 5 pixels in open surfaces open.
OPEN_COST = 2.5
# A connection's cost is its deviation from the tangent planes plus this share of its length. The
# length decides if the planes cannot, because both are seen edge-on.
DISTANCE_WEIGHT = 0.02
# Range of a rim's position between its ray (0) and the next (1). It must not coincide with its
# hits, because that makes degenerate faces. The maximum matters for flat walls seen edge-on, whose
# planes do not meet nearby; 0.7 is best on the benchmark scans (0.6 to 0.8 are similar).
RIM_RANGE = (0.02, 0.7)
# Share of rays with an even number of hits above which an object is treated as solid: noise makes
# few odd rays, open sheets and leaves make many. If most even rays also enter and leave in turn,
# an even ray that does not has wrong normals. In other objects, such a ray passes through sheets.
SOLID_SHARE = 0.75
# Cells of the alignment tables in memory at once: about 300 MB for any number of layers.
TABLE_CELLS = 1 << 22
# Cosine between a hit's normal and its face's below which the corner is shaded flat. It is low
# because faces along silhouettes are long, thin and turned, and look better with hits' normals.
SHARP_COSINE = 0.2

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Directions to the neighbouring pixels, and the corners of a cell counter-clockwise in the
# image: top left, bottom left, bottom right, top right. Then the next corner, for entering hits
# (front faces, counter-clockwise) and for leaving hits (clockwise).
_RIGHT, _DOWN, _LEFT, _UP = range(4)
_WAY_ENTERING = (_DOWN, _RIGHT, _UP, _LEFT)
_WAY_LEAVING = (_RIGHT, _UP, _LEFT, _DOWN)


def reconstruct(xray: XRay, camera: Camera) -> Surface:
    """One mesh through all hits, in world space.

    It is closed where rays enter and leave in pairs. It is open elsewhere, at the image's border,
    and where hits were dropped behind the last layer. `Surface.is_watertight` tells whether it is
    closed everywhere. Faces are wound by the hits' normals, so that they face outwards.

    Returns a Surface with `corner_normals` (smooth except at sharp edges) and `corner_colors`
    (sRGB-encoded 0..1). An empty X-Ray gives no faces. Raises ValueError if the camera's image
    size is not the X-Ray's.
    """
    hits = _Hits.from_xray(xray, camera)
    links = _connect(hits)
    rims = _rim_vertices(hits, links)
    points = np.concatenate([hits.points, rims.points])
    normals = np.concatenate([hits.normals, rims.normals])
    colors = np.concatenate([hits.colors, rims.colors])
    faces, centres = _polygons(hits, links, points, normals)
    if len(centres):
        members, owner = centres[:, 0], centres[:, 1]
        points = np.concatenate([points, _mean_by(points[members], owner)])
        normals = np.concatenate([normals, _unit(_mean_by(normals[members], owner))])
        colors = np.concatenate([colors, _mean_by(colors[members], owner)])
    return _surface(faces, points, normals, colors, camera)


@dataclass(frozen=True)
class _Hits:
    """The hits of an X-Ray in camera space, by pixel and then front to back."""

    size: tuple[int, int]  # height, width
    focal: float
    pixel: Ints  # (N,) flat pixel
    start: Ints  # (H*W + 1,) a pixel's hits are start[pixel]:start[pixel + 1]
    rays: Floats  # (N, 3) unit
    depth: Floats  # (N,)
    points: Floats  # (N, 3)
    normals: Floats  # (N, 3)
    colors: Floats  # (N, 3)
    entering: Bools  # (N,)
    level: Ints  # (N,) the hit bounds the region inside at least this many solids
    solid: Bools  # (H*W,) the ray leaves as often as it enters

    @classmethod
    def from_xray(cls, xray: XRay, camera: Camera) -> _Hits:
        layers, height, width = xray.shape
        if (camera.height, camera.width) != (height, width):
            raise ValueError(
                f"the X-Ray is {width}x{height} pixels, the camera {camera.width}x{camera.height}"
            )
        pixel = xray.index % (height * width)
        order = np.lexsort((xray.hit_depth, pixel))
        pixel = pixel[order]
        depth = xray.hit_depth[order].astype(np.float64)
        rays = camera.ray_directions(pixel // width, pixel % width)
        normals = _unit(_finite(xray.hit_normal[order]))
        count = np.bincount(pixel, minlength=height * width)
        start = np.concatenate([[0], np.cumsum(count)])

        facing = np.einsum("ij,ij->i", normals, rays)
        entering = _consistent(facing < 0, pixel, start)
        winding, rest = _winding(entering, pixel, start)
        solid = rest == 0
        if xray.dropped:
            solid &= count < layers
        return cls(
            (height, width),
            camera.focal,
            pixel,
            start,
            rays,
            depth,
            rays * depth[:, None],
            normals,
            _finite(xray.hit_color[order]),
            entering,
            winding + ~entering,
            solid,
        )


def _winding(entering: Bools, pixel: Ints, start: Ints) -> tuple[Ints, Ints]:
    """The number of solids that contain the ray behind each hit (N,) and at its end (H*W,)."""
    total = np.concatenate([[0], np.cumsum(np.where(entering, 1, -1))])
    before_ray = total[start[:-1]]
    return total[1:] - before_ray[pixel], total[start[1:]] - before_ray


def _consistent(entering: Bools, pixel: Ints, start: Ints) -> Bools:
    """`entering`, corrected to alternate on rays through solids where the normals do not.

    Predicted normals often point to the wrong side. In a mostly solid object, the order of the hits
    is more reliable. In an open object, only the normals are available.
    """
    count = np.diff(start)
    first = (np.arange(len(pixel)) - start[pixel]) % 2 == 0
    even = (count > 0) & (count % 2 == 0)
    alternating = even & (np.bincount(pixel, entering != first, minlength=len(count)) == 0)
    if even.sum() < SOLID_SHARE * (count > 0).sum() or 2 * alternating.sum() < even.sum():
        return entering
    winding, rest = _winding(entering, pixel, start)
    impossible = (rest != 0) | (np.bincount(pixel, winding < 0, minlength=len(count)) > 0)
    return np.where((even & impossible)[pixel], first, entering)


@dataclass(frozen=True)
class _Links:
    """The connections of each hit (N) towards each neighbouring pixel."""

    partner: Ints  # (4, N) a hit, or -1 at an open border
    rim: Ints  # (4, N) index of the fold's rim, or -1
    folds: Ints  # (F, 2) the two hits of each rim, front first
    fold_way: Ints  # (F,) the direction from the hits to the rim


def _connect(hits: _Hits) -> _Links:
    """Align the hits of all neighbouring pixels."""
    count = len(hits.pixel)
    height, width = hits.size
    partner = np.full((4, count), -1, dtype=np.int64)
    rim = np.full((4, count), -1, dtype=np.int64)
    folds: list[Ints] = []
    ways: list[Ints] = []
    made = 0

    grid = np.arange(height * width).reshape(height, width)
    number = np.diff(hits.start)
    by_level, level_start, level_of = _group_by_level(hits)
    for way, back, near, far in (
        (_RIGHT, _LEFT, grid[:, :-1].ravel(), grid[:, 1:].ravel()),
        (_DOWN, _UP, grid[:-1].ravel(), grid[1:].ravel()),
    ):
        some = (number[near] > 0) | (number[far] > 0)
        near, far = near[some], far[some]
        closed = hits.solid[near] & hits.solid[far]
        lists = [
            (
                np.arange(count),
                hits.start[near[~closed]],
                number[near[~closed]],
                hits.start[far[~closed]],
                number[far[~closed]],
                False,
            ),
            (by_level, *_level_pairs(near[closed], far[closed], level_of, level_start), True),
        ]
        for order, near_start, near_count, far_start, far_count, must_close in lists:
            longest = np.maximum(near_count, far_count)
            low = 0
            while low < longest.max(initial=0):
                high = max(2, 2 * low)
                pick = np.flatnonzero((longest > low) & (longest <= high))
                low = high
                if not len(pick):
                    continue
                for part in np.array_split(pick, -(-len(pick) * (high + 1) ** 2 // TABLE_CELLS)):
                    a, b, fold_a, fold_b = _align(
                        hits,
                        _lists(order, near_start[part], near_count[part]),
                        _lists(order, far_start[part], far_count[part]),
                        must_close,
                    )
                    partner[way, a], partner[back, b] = b, a
                    for fold, side in ((fold_a, way), (fold_b, back)):
                        first, second = fold.T
                        partner[side, first], partner[side, second] = second, first
                        rim[side, first] = rim[side, second] = made + np.arange(len(fold))
                        made += len(fold)
                        folds.append(fold)
                        ways.append(np.full(len(fold), side))
    return _Links(
        partner,
        rim,
        np.concatenate([np.zeros((0, 2), dtype=np.int64), *folds]),
        np.concatenate([np.zeros(0, dtype=np.int64), *ways]),
    )


def _group_by_level(hits: _Hits) -> tuple[Ints, Ints, tuple[Ints, int, int]]:
    """Hits ordered by (pixel, level, depth), the groups' starts, and the key of a group.

    If solids overlap, the hits of one level bound the region inside at least that many solids.
    They enter and leave in turn like those of a single solid, and levels do not cross.
    """
    low = int(hits.level.min(initial=0))
    span = int(hits.level.max(initial=0)) - low + 1
    key = hits.pixel * span + (hits.level - low)
    order = np.argsort(key, kind="stable")
    number = np.bincount(key, minlength=len(hits.solid) * span)
    return order, np.concatenate([[0], np.cumsum(number)]), (number, low, span)


def _level_pairs(
    near: Ints, far: Ints, levels: tuple[Ints, int, int], start: Ints
) -> tuple[Ints, Ints, Ints, Ints]:
    """Start and count, near and far, of the lists for each pair of pixels and each level."""
    number, _, span = levels
    near_key = (near[:, None] * span + np.arange(span)).ravel()
    far_key = (far[:, None] * span + np.arange(span)).ravel()
    some = (number[near_key] > 0) | (number[far_key] > 0)
    near_key, far_key = near_key[some], far_key[some]
    return start[near_key], number[near_key], start[far_key], number[far_key]


def _lists(order: Ints, start: Ints, count: Ints) -> Ints:
    """Hits (B, longest) of each list, front to back, padded with -1."""
    place = np.arange(count.max(initial=0))
    inside = place < count[:, None]
    return np.where(inside, order[np.where(inside, start[:, None] + place, 0)], -1)


_MATCH, _FOLD_A, _FOLD_B, _OPEN_A, _OPEN_B = range(5)


def _align(hits: _Hits, a: Ints, b: Ints, must_close: bool) -> tuple[Ints, Ints, Ints, Ints]:
    """Align pairs of lists a (B, m) and b (B, n) of hits, in order and at minimum cost.

    Returns the linked hits (K,) of a and of b, and the folds (F, 2) in a and in b.
    With `must_close` every hit is connected; the lists must then alternate and have even length.
    """
    batch, m = a.shape
    n = b.shape[1]
    link = connection_cost(hits.points, hits.normals, a[:, :, None], b[:, None, :])
    link[hits.entering[a][:, :, None] != hits.entering[b][:, None, :]] = np.inf
    fold_a, open_a = _single_costs(hits, a)
    fold_b, open_b = _single_costs(hits, b)

    cost = np.full((m + 1, n + 1, batch), np.inf)
    move = np.zeros((m + 1, n + 1, batch), dtype=np.uint8)
    cost[0, 0] = 0
    for i in range(m + 1):
        for j in range(n + 1):
            options = []
            if i and j:
                options.append((_MATCH, cost[i - 1, j - 1] + link[:, i - 1, j - 1]))
            if i > 1:
                options.append((_FOLD_A, cost[i - 2, j] + fold_a[:, i - 2]))
            if j > 1:
                options.append((_FOLD_B, cost[i, j - 2] + fold_b[:, j - 2]))
            if i and not must_close:
                options.append((_OPEN_A, cost[i - 1, j] + open_a[:, i - 1]))
            if j and not must_close:
                options.append((_OPEN_B, cost[i, j - 1] + open_b[:, j - 1]))
            for name, value in options:
                better = value < cost[i, j]
                cost[i, j][better] = value[better]
                move[i, j][better] = name

    found: list[list[Ints]] = [[], [], [], []]
    row = np.arange(batch)
    i, j = (a >= 0).sum(axis=1), (b >= 0).sum(axis=1)
    for _ in range(m + n):
        todo = (i > 0) | (j > 0)
        row, i, j = row[todo], i[todo], j[todo]
        step = move[i, j, row]
        match, both_a, both_b = step == _MATCH, step == _FOLD_A, step == _FOLD_B
        found[0].append(a[row[match], i[match] - 1])
        found[1].append(b[row[match], j[match] - 1])
        for lists, place, picked, into in ((a, i, both_a, found[2]), (b, j, both_b, found[3])):
            rows, last = row[picked], place[picked] - 1
            into.append(np.stack([lists[rows, last - 1], lists[rows, last]], axis=1))
        i = i - match - 2 * both_a - (step == _OPEN_A)
        j = j - match - 2 * both_b - (step == _OPEN_B)
    linked_a, linked_b, folds_a, folds_b = (np.concatenate(parts) for parts in found)
    return linked_a, linked_b, folds_a, folds_b


def _single_costs(hits: _Hits, lists: Ints) -> tuple[Floats, Floats]:
    """Costs of folding pairs of successive hits (B, m - 1) and of leaving a hit open (B, m)."""
    fold = connection_cost(hits.points, hits.normals, lists[:, :-1], lists[:, 1:])
    fold[hits.entering[lists[:, :-1]] == hits.entering[lists[:, 1:]]] = np.inf
    return fold, OPEN_COST * hits.depth[lists] / hits.focal


def connection_cost(points: Floats, normals: Floats, a: Ints, b: Ints) -> Floats:
    """How much a surface through the hits a and b deviates from their tangent planes.

    The cost is the greater of two lengths, which are equal on a circle: the mean distance of each
    hit from the other's plane, and the distance between the hits times half the angle between the
    normals. The angle separates the two sides of a thin wall seen at a grazing angle, which lie
    almost in each other's planes.
    """
    between = points[b] - points[a]
    off_a = np.abs(np.einsum("...i,...i->...", between, normals[a]))
    off_b = np.abs(np.einsum("...i,...i->...", between, normals[b]))
    turn = normals[b] - normals[a]
    squared = np.einsum("...i,...i->...", between, between)
    bend = 0.5 * np.sqrt(squared * np.einsum("...i,...i->...", turn, turn))
    cost: Floats = np.maximum(0.5 * (off_a + off_b), bend) + DISTANCE_WEIGHT * np.sqrt(squared)
    return cost


@dataclass(frozen=True)
class _Rims:
    points: Floats  # (F, 3) camera space
    normals: Floats  # (F, 3)
    colors: Floats  # (F, 3)


def _rim_vertices(hits: _Hits, links: _Links) -> _Rims:
    """The points at which the surface folds back between a ray and the next.

    On a plane, the inverse of z is linear across the image, so the two tangent planes meet at
    the root of a linear function. A round rim ends halfway to that point.
    """
    front, back = links.folds.T
    step = np.array([[1, 0], [0, -1], [-1, 0], [0, 1]])[links.fold_way] / hits.focal
    ray = hits.rays[front] / -hits.rays[front][:, 2:]
    inverse = [-1 / hits.points[hit][:, 2] for hit in (front, back)]
    slope = []
    for hit in (front, back):
        across = np.einsum("ij,ij->i", hits.normals[hit][:, :2], step)
        distance = np.einsum("ij,ij->i", hits.normals[hit], hits.points[hit])
        slope.append(np.divide(across, distance, out=np.zeros(len(hit)), where=distance != 0))
    gap, closing = inverse[0] - inverse[1], slope[1] - slope[0]
    meet = np.divide(gap, closing, out=np.full(len(gap), 2.0), where=2 * closing > gap)
    place = (meet / 2).clip(*RIM_RANGE)
    middle = 0.5 * (inverse[0] + inverse[1])
    ray[:, :2] += step * place[:, None]
    normal = hits.normals[front] + hits.normals[back]
    outward = np.where(hits.entering[front], 1.0, -1.0)[:, None] * step * hits.focal
    normal[:, :2] += 1e-3 * outward
    return _Rims(
        ray / middle[:, None],
        _unit(normal),
        0.5 * (hits.colors[front] + hits.colors[back]),
    )


def _polygons(hits: _Hits, links: _Links, points: Floats, normals: Floats) -> tuple[Ints, Ints]:
    """Triangles (M, 3), and the (vertex, centre) pairs of the polygons that need a centre.

    Vertices are numbered: hits, then rims, then centres. An edge inside a polygon must not exist
    in the next cell too. It may therefore join opposite hits, or a rim with a vertex on another
    side of the cell. Two rims with at most three hits between them are on different sides. Any
    other polygon gets a centre.
    """
    count = len(hits.pixel)
    successor, rim = _successors(hits, links)
    faces: list[Ints] = []
    members: list[Ints] = []
    centre = len(points)

    for ring in _cycles(successor):
        corner = ring % max(count, 1)
        over = rim[ring]
        rims = (over >= 0).sum(axis=1)
        length = ring.shape[1]
        if length == 4:
            faces.append(_quads(corner[rims == 0], points, normals))
        simple = (length == 4) & (rims == 0)

        two = np.flatnonzero(rims == 2)
        # Rotate the ring so that it ends with a rim; the other rim is then at `cut`.
        last = length - 1 - np.argmax(over[two, ::-1] >= 0, axis=1)
        turn = (last[:, None] + 1 + np.arange(length)) % length
        corner_two = np.take_along_axis(corner[two], turn, axis=1)
        over_two = np.take_along_axis(over[two], turn, axis=1)
        cut = np.argmax(over_two >= 0, axis=1)
        for at in range(length - 1):
            pick = cut == at
            if max(at + 1, length - 1 - at) > 3 or not pick.any():
                continue
            first, second = over_two[pick, at, None], over_two[pick, -1, None]
            for head, chain, tail in (
                (second, corner_two[pick, : at + 1], first),
                (first, corner_two[pick, at + 1 :], second),
            ):
                faces.append(_chain(np.hstack([head, chain, tail]), points, normals))
            simple[two[pick]] = True

        rest = np.flatnonzero(~simple)
        if len(rest):
            vertex = np.stack([corner[rest], over[rest]], axis=2).reshape(len(rest), -1)
            present = vertex >= 0
            owner = np.broadcast_to(centre + np.arange(len(rest))[:, None], vertex.shape)
            following = np.where(over[rest] >= 0, over[rest], np.roll(corner[rest], -1, axis=1))
            after_hit = np.stack([corner[rest], following], axis=2)
            after_rim = np.stack([over[rest], np.roll(corner[rest], -1, axis=1)], axis=2)
            hub = owner[:, ::2]
            for edge, there in ((after_hit, hub >= 0), (after_rim, over[rest] >= 0)):
                faces.append(np.column_stack([edge[there], hub[there]]))
            members.append(np.column_stack([vertex[present], owner[present]]))
            centre += len(rest)

    faces.append(_border_triangles(successor, rim, count))
    empty = np.zeros((0, 2), dtype=np.int64)
    return np.concatenate(faces), np.concatenate([empty, *members])


def _successors(hits: _Hits, links: _Links) -> tuple[Ints, Ints]:
    """The next corner around each cell, for each of the 4N corners (`corner * N + hit`).

    Returns the next corner or -1, and the rim vertex in between or -1.
    """
    count = len(hits.pixel)
    number = np.arange(count)
    successor = np.empty((4, count), dtype=np.int64)
    rim = np.empty((4, count), dtype=np.int64)
    for corner in range(4):
        way = np.where(hits.entering, _WAY_ENTERING[corner], _WAY_LEAVING[corner])
        partner = links.partner[way, number]
        fold = links.rim[way, number]
        turn = np.where(hits.entering, 1, -1)
        onto = np.where(fold >= 0, corner, (corner + turn) % 4)
        successor[corner] = np.where(partner >= 0, onto * count + partner, -1)
        rim[corner] = np.where(fold >= 0, fold + count, -1)
    return successor.ravel(), rim.ravel()


def _cycles(successor: Ints) -> list[Ints]:
    """The cycles of a partial permutation, by length: arrays (P, length)."""
    rings: list[Ints] = []
    start = np.flatnonzero(successor >= 0)
    trail = start[:, None]
    while len(trail):
        following = successor[trail[:, -1]]
        # Each ring is reached from all its members; it is kept only for the smallest.
        closed = following == trail[:, 0]
        if closed.any():
            rings.append(trail[closed])
        alive = following > trail[:, 0]
        trail = np.column_stack([trail[alive], following[alive]])
    return rings


def _border_triangles(successor: Ints, rim: Ints, count: int) -> Ints:
    """The half cells along open borders: triangles at hits that are connected on both sides.

    No triangle crosses a rim, because it would join the front to the back.
    """
    has_before = np.zeros(len(successor), dtype=bool)
    has_before[successor[successor >= 0]] = True
    at = np.flatnonzero(~has_before & (successor >= 0))
    before = np.full(len(at), -1)
    faces = [np.zeros((0, 3), dtype=np.int64)]
    while len(at):
        # `before` is the vertex that precedes the hit `at`; -1 if there is none or if the last
        # triangle used it.
        hit = at % count
        following = successor[at]
        on = following >= 0
        over = rim[at]
        after = np.where(over >= 0, over, following % max(count, 1))
        full = on & (before >= 0)
        faces.append(np.column_stack([before, hit, after])[full])
        before = np.where(over >= 0, over, np.where(full, -1, hit))[on]
        at = following[on]
    return np.concatenate(faces)


def _chain(polygon: Ints, points: Floats, normals: Floats) -> Ints:
    """Triangles of polygons (P, 3..5) that consist of a rim, hits and another rim."""
    size = polygon.shape[1]
    if size == 3:
        return polygon
    if size == 4:
        return _quads(polygon, points, normals)
    return polygon[:, [[0, 1, 2], [2, 3, 4], [0, 2, 4]]].reshape(-1, 3)


def _quads(quad: Ints, points: Floats, normals: Floats) -> Ints:
    """Triangles (2P, 3) of quads (P, 4), split along the diagonal that best fits the normals."""

    def misfit(a: Ints, b: Ints) -> Floats:
        between = points[b] - points[a]
        off: Floats = np.abs(np.einsum("ij,ij->i", between, normals[a]))
        off += np.abs(np.einsum("ij,ij->i", between, normals[b]))
        return off

    first = misfit(quad[:, 0], quad[:, 2]) <= misfit(quad[:, 1], quad[:, 3])
    split = np.where(first[:, None], [0, 1, 2, 0, 2, 3], [0, 1, 3, 1, 2, 3])
    return np.take_along_axis(quad, split, axis=1).reshape(-1, 3)


def _surface(
    faces: Ints, points: Floats, normals: Floats, colors: Floats, camera: Camera
) -> Surface:
    """The mesh in world space, without unused vertices."""
    used = np.zeros(len(points), dtype=bool)
    used[faces] = True
    number = np.cumsum(used) - 1
    rotation = camera.camera_to_world[:3, :3]
    vertices = points[used] @ rotation.T + camera.position
    smooth, colors = (normals @ rotation.T)[used], colors[used]
    faces = number[faces]
    corners = vertices[faces]
    flat = _unit(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    corner_normals = smooth[faces]
    sharp = np.einsum("ijk,ik->ij", corner_normals, flat) < SHARP_COSINE
    corner_normals = np.where(sharp[..., None], flat[:, None], corner_normals)
    return Surface(
        vertices,
        faces,
        corner_normals=corner_normals.astype(np.float32),
        corner_colors=colors[faces].astype(np.float32),
    )


def _finite(values: NDArray[np.float32]) -> Floats:
    return np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)


def _unit(vectors: Floats) -> Floats:
    length = np.sqrt(np.einsum("...i,...i->...", vectors, vectors))[..., None]
    unit: Floats = vectors / np.where(length > 0, length, 1)
    return unit


def _mean_by(values: Floats, owner: Ints) -> Floats:
    """Mean of the values (K, 3) with the same owner, by ascending owner."""
    owner = owner - owner.min()
    number = np.bincount(owner)
    return np.stack([np.bincount(owner, column) / number for column in values.T], axis=1)
