"""The kernel of `cast` compiled by numba, for one thread; it releases the GIL.

It has the same functions as `array_kernel` and gives bitwise identical hits; see there. Compiling
takes some seconds. The compiled code is cached beside this file, or if that is not writable in the
user's cache folder. Without a cache, each process compiles for itself.
"""

# numba infers the types of what it compiles.
# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from ..color import STEPS, TO_LINEAR, TO_SRGB
from ..surface import WRAPS, Material
from .array_kernel import FINE, PICTURE_STEPS
from .scene import GUARD_PIXELS, SNAP, SNAP_BITS, Floats, Hits, Ints, Scene, clip

HITS_AT_ONCE = 1 << 16
FACES_AT_ONCE = 1 << 12
# Marks, as its x, a vertex outside the grid. Its y is 1 if it is in front of the camera.
IRREGULAR = -(1 << 31)
REPEAT, EXTEND, MIRROR, CLIP = (WRAPS.index(n) for n in ("repeat", "extend", "mirror", "clip"))

# Exceptions of reading or writing compiled code: a full disk, a folder that became read-only, a
# truncated file, code compiled under another name of this package.
_CACHE_TROUBLE = (
    OSError,
    ImportError,
    EOFError,
    AttributeError,
    LookupError,
    ValueError,
    RuntimeError,
    pickle.PickleError,
)
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
_inline: Any = numba.njit(**_OPTIONS)


class _Compiled:
    """A function that is compiled at its first call, or loaded from the cache."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._call: Callable[..., Any]
        try:
            self._call = numba.njit(cache=True, **_OPTIONS)(function)
        except RuntimeError:  # no cache folder is writable
            self._call = numba.njit(**_OPTIONS)(function)

    def __call__(self, *arguments: Any) -> Any:
        try:
            return self._call(*arguments)
        except _CACHE_TROUBLE:
            # The functions themselves never raise.
            self._call = numba.njit(**_OPTIONS)(self._function)
            return self._call(*arguments)


def moved(
    vertices: NDArray[np.floating[Any]], position: Floats, rotation: Floats
) -> tuple[Floats, float]:
    """See `scene.Moved`."""
    if vertices.dtype not in (np.float32, np.float64):
        vertices = vertices.astype(np.float64)
    return _moved(
        np.ascontiguousarray(vertices),
        np.ascontiguousarray(position),
        np.ascontiguousarray(rotation),
    )


def hits(scene: Scene) -> Iterator[Hits]:
    """See `array_kernel.hits`."""
    yield from _hits(scene, np.empty(0, np.int32), np.empty(0))


def first_hits(scene: Scene, face: Ints, distance: Floats) -> None:
    """See `array_kernel.first_hits`."""
    for _ in _hits(scene, face, distance):
        pass  # they are entered at once


def _hits(scene: Scene, first: Ints, nearest: Floats) -> Iterator[Hits]:
    """The hits; where `first` and `nearest` are not empty, they are entered there instead."""
    points, all_regular = _project(
        scene.vertices, scene.focal, scene.shift_x, scene.shift_y, scene.near
    )
    nothing = np.empty(0, np.int64)
    yield from _collected(scene, points, scene.faces, nothing, first, nearest)
    if not all_regular:
        odd, x, y = clip(scene, _odd_faces(points, scene.faces))
        if len(odd):
            points = np.stack([x.T.reshape(-1), y.T.reshape(-1)], axis=1).astype(np.int32)
            corners = np.arange(len(points), dtype=scene.faces.dtype).reshape(-1, 3)
            yield from _collected(scene, points, corners, odd.astype(np.int64), first, nearest)


def _collected(
    scene: Scene,
    points: NDArray[np.int32],
    triangles: Ints,
    owner: Ints,
    first: Ints,
    nearest: Floats,
) -> Iterator[Hits]:
    start = 0
    while start < len(triangles):
        start, pixel, face, distance = _collect(
            points,
            triangles,
            owner,
            scene.vertices,
            scene.faces,
            scene.ray_x,
            scene.ray_y,
            start,
            HITS_AT_ONCE,
            first,
            nearest,
        )
        yield pixel, face, distance


def nearest(found: Hits, pixels: int, layers: int) -> tuple[NDArray[np.int64], Ints, Floats]:
    """See `array_kernel.nearest`."""
    pixel, face, distance = found
    return _nearest(pixel.astype(np.int32), face.astype(np.int32), distance, pixels, layers)


def keep_first(found: Hits, face: Ints, distance: Floats) -> None:
    """See `array_kernel.keep_first`."""
    _keep_first(*found, face, distance)


def samples(
    scene: Scene, face: Ints, side: int, uvs: NDArray[np.floating[Any]], slot: Ints, texels: Floats
) -> tuple[Ints, Ints, Ints, Floats, Floats]:
    """See `array_kernel.samples`."""
    return _samples(
        scene.vertices,
        scene.faces,
        scene.ray_x,
        scene.ray_y,
        face,
        side,
        np.ascontiguousarray(uvs),
        slot.astype(np.int32),
        texels,
    )


def normals(scene: Scene, face: Ints) -> Floats:
    """See `array_kernel.normals`."""
    return _normals(scene.vertices, scene.faces, face.astype(np.int32))


def smooth_normals(
    scene: Scene, corners: NDArray[np.floating[Any]], rotation: Floats, face: Ints, weights: Floats
) -> Floats:
    """See `array_kernel.smooth_normals`."""
    if corners.dtype not in (np.float32, np.float64):
        corners = corners.astype(np.float64)
    return _smooth_normals(
        scene.vertices,
        scene.faces,
        np.ascontiguousarray(corners),
        np.ascontiguousarray(rotation),
        face.astype(np.int32),
        np.ascontiguousarray(weights),
    )


def weights(scene: Scene, face: Ints, pixel: Ints) -> Floats:
    """See `array_kernel.weights`."""
    return _weights(
        scene.vertices,
        scene.faces,
        scene.ray_x,
        scene.ray_y,
        face.astype(np.int32),
        pixel.astype(np.int32),
    )


def weights_along(scene: Scene, face: Ints, ray_x: Floats, ray_y: Floats) -> Floats:
    """See `array_kernel.weights_along`."""
    return _weights_along(scene.vertices, scene.faces, face.astype(np.int32), ray_x, ray_y)


def interpolate(values: NDArray[np.floating[Any]], face: Ints, weights: Floats) -> Floats:
    """See `array_kernel.interpolate`."""
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    return _interpolate(
        np.ascontiguousarray(values), face.astype(np.int32), np.ascontiguousarray(weights)
    )


def textured(
    material: Material, uvs: NDArray[np.floating[Any]], face: Ints, weights: Floats
) -> NDArray[np.float32]:
    """See `array_kernel.textured`."""
    assert material.texture is not None
    # In two passes, because a single pass mostly waits for memory.
    uv = interpolate(uvs, face, weights)
    colors = np.empty((len(face), 3), np.float32)
    return _sampled(material.texture, uv, material.wrap, material.interpolation, colors)


def sample(texture: NDArray[np.uint8], uv: Floats, wrap: str, interpolation: str) -> Floats:
    """See `casting.sample_texture`."""
    return _sampled(texture, uv, wrap, interpolation, np.empty((len(uv), 4)))


def lit(
    normal: NDArray[np.floating[Any]],
    ray: NDArray[np.floating[Any]],
    color: NDArray[np.floating[Any]],
    sky: float,
    ground: float,
    up: Floats,
    directions: Floats,
    strengths: Floats,
) -> NDArray[np.float32]:
    """See `array_kernel.lit`."""
    shown = np.empty((len(normal), 3), np.float32)
    _lit(
        *map(np.ascontiguousarray, (normal, ray, color)),
        float(sky),
        float(ground),
        *map(np.ascontiguousarray, (up, directions, strengths)),
        TO_LINEAR,
        TO_SRGB,
        shown,
    )
    return shown


def picture(
    pixel: Ints, count: Ints, color: NDArray[np.float32], pixels: int, rays: int
) -> NDArray[np.uint8]:
    """See `array_kernel.picture`."""
    return _picture(pixel, count, np.ascontiguousarray(color), pixels, rays)


def _sampled(
    texture: NDArray[np.uint8], uv: Floats, wrap: str, interpolation: str, samples: NDArray[Any]
) -> NDArray[Any]:
    _sample(
        np.ascontiguousarray(texture),
        np.ascontiguousarray(uv),
        WRAPS.index(wrap),
        interpolation == "linear",
        samples,
    )
    return samples


@_Compiled
def _moved(vertices, position, rotation):
    seen = np.empty((len(vertices), 3), np.float64)
    farthest = 0.0
    for i in range(len(vertices)):
        x = vertices[i, 0] - position[0]
        y = vertices[i, 1] - position[1]
        z = vertices[i, 2] - position[2]
        for axis in range(3):
            value = x * rotation[0, axis] + y * rotation[1, axis] + z * rotation[2, axis]
            seen[i, axis] = value
            if abs(value) > farthest or value != value:  # NaN stays
                farthest = abs(value)
    return seen, farthest


@_Compiled
def _project(vertices, focal, shift_x, shift_y, near):
    """Snapped (column, row) of vertices (N, 3), and whether all are on the grid."""
    points = np.empty((len(vertices), 2), np.int32)
    all_regular = True
    for i in range(len(vertices)):
        ahead = -vertices[i, 2]
        x = focal * vertices[i, 0] / ahead + shift_x
        y = -focal * vertices[i, 1] / ahead + shift_y
        if ahead > near and abs(x) < GUARD_PIXELS and abs(y) < GUARD_PIXELS:
            points[i, 0] = np.rint(x * SNAP)
            points[i, 1] = np.rint(y * SNAP)
        else:
            points[i, 0] = IRREGULAR
            points[i, 1] = ahead > near
            all_regular = False
    return points, all_regular


@_Compiled
def _odd_faces(points, faces):
    """The faces (P,) that are partly in front of the camera but not completely on the grid."""
    odd = np.empty(len(faces), np.int64)
    count = 0
    for t in range(len(faces)):
        whole, ahead = True, False
        for corner in range(3):
            i = faces[t, corner]
            regular = points[i, 0] != IRREGULAR
            whole &= regular
            ahead |= regular or points[i, 1] != 0
        if ahead and not whole:
            odd[count] = t
            count += 1
    return odd[:count].copy()


@_inline
def _first_column(xa, ya, xb, yb, level):
    rise = yb - ya
    across = (xb - xa) * (level - ya) + xa * rise
    return -((-across) // (rise << SNAP_BITS))


@_inline
def _normal(vertices, a, b, c):
    px, py, pz = (
        vertices[b, 0] - vertices[a, 0],
        vertices[b, 1] - vertices[a, 1],
        vertices[b, 2] - vertices[a, 2],
    )
    qx, qy, qz = (
        vertices[c, 0] - vertices[a, 0],
        vertices[c, 1] - vertices[a, 1],
        vertices[c, 2] - vertices[a, 2],
    )
    return py * qz - pz * qy, pz * qx - px * qz, px * qy - py * qx


@_inline
def _grown(values, capacity):
    more = np.empty(capacity, values.dtype)
    more[: len(values)] = values
    return more


@_inline
def _candidates(points, triangles, start, stop, width, height, listed):
    """List the triangles whose bounding box contains a pixel; returns their number.

    Branch-free: most triangles of a fine mesh contain no pixel, and branches would be mispredicted.
    """
    count = 0
    for t in range(start, stop):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        xa, xb, xc = points[i, 0], points[j, 0], points[k, 0]
        ya, yb, yc = points[i, 1], points[j, 1], points[k, 1]
        left, right = min(xa, xb, xc), max(xa, xb, xc)
        low, high = min(ya, yb, yc), max(ya, yb, yc)
        begin = max((left + (SNAP - 1)) >> SNAP_BITS, 0)
        end = min((right + (SNAP - 1)) >> SNAP_BITS, width)
        first = max((low + (SNAP - 1)) >> SNAP_BITS, 0)
        last = min((high + (SNAP - 1)) >> SNAP_BITS, height)
        listed[count] = t
        count += (end > begin) & (last > first) & (left != IRREGULAR)
    return count


@_Compiled
def _collect(
    points,
    triangles,
    owner,
    vertices,
    faces,
    ray_x,
    ray_y,
    start,
    at_once,
    first_face,
    nearest,
):
    """Hits of the snapped triangles from `start` on, and where to continue if there are many.

    points (P, 2) : snapped corners. triangles (T, 3) : indices of corners. owner (T,) : the face
    that each triangle is a part of; empty if triangles are the faces. first_face, nearest
    (H * W,) : where the nearest hit of each pixel is kept, if they are not empty, instead of all.
    """
    keeps_all = len(nearest) == 0
    width, height = len(ray_x), len(ray_y)
    capacity = min(1 << 15, at_once)
    pixel = np.empty(capacity, np.int32)
    hit_face = np.empty(capacity, np.int32)
    distance = np.empty(capacity, np.float64)
    listed = np.empty(FACES_AT_ONCE, np.int64)
    count, candidates, next_candidate, listed_to = 0, 0, 0, start
    while True:
        if next_candidate == candidates:
            if listed_to == len(triangles):
                t = listed_to
                break
            stop = min(listed_to + FACES_AT_ONCE, len(triangles))
            candidates = _candidates(points, triangles, listed_to, stop, width, height, listed)
            next_candidate, listed_to = 0, stop
            continue
        t = listed[next_candidate]
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        xa, xb, xc = np.int64(points[i, 0]), np.int64(points[j, 0]), np.int64(points[k, 0])
        ya, yb, yc = np.int64(points[i, 1]), np.int64(points[j, 1]), np.int64(points[k, 1])
        first = max((min(ya, yb, yc) + (SNAP - 1)) >> SNAP_BITS, 0)
        last = min((max(ya, yb, yc) + (SNAP - 1)) >> SNAP_BITS, height)
        begin = max((min(xa, xb, xc) + (SNAP - 1)) >> SNAP_BITS, 0)
        end = min((max(xa, xb, xc) + (SNAP - 1)) >> SNAP_BITS, width)
        most = (last - first) * (end - begin)
        if keeps_all and count + most > capacity:
            if count > 0 and count + most > at_once:
                break
            capacity = max(2 * capacity, count + most)
            pixel = _grown(pixel, capacity)
            hit_face = _grown(hit_face, capacity)
            distance = _grown(distance, capacity)
        next_candidate += 1
        # Corners by height.
        if ya > yb:
            xa, ya, xb, yb = xb, yb, xa, ya
        if yb > yc:
            xb, yb, xc, yc = xc, yc, xb, yb
        if ya > yb:
            xa, ya, xb, yb = xb, yb, xa, ya
        face = t if len(owner) == 0 else owner[t]
        planed = False
        x, y, z, offset, low, high = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for row in range(first, last):
            level = row << SNAP_BITS
            long_edge = _first_column(xa, ya, xc, yc, level)
            if level < yb:
                short_edge = _first_column(xa, ya, xb, yb, level)
            else:
                short_edge = _first_column(xb, yb, xc, yc, level)
            left = max(min(long_edge, short_edge), 0)
            right = min(max(long_edge, short_edge), width)
            if right <= left:
                continue
            if not planed:
                planed = True
                a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
                x, y, z = _normal(vertices, a, b, c)
                offset = x * vertices[a, 0] + y * vertices[a, 1] + z * vertices[a, 2]
                low = max(min(-vertices[a, 2], -vertices[b, 2], -vertices[c, 2]), 0.0)
                high = max(-vertices[a, 2], -vertices[b, 2], -vertices[c, 2])
            v = ray_y[row]
            for column in range(left, right):
                u = ray_x[column]
                along = offset / (x * u + y * v - z)
                # The distance of a face seen edge-on is ill-defined: clamp it to its corners'.
                if not np.isfinite(along):
                    along = high
                along = min(max(along, low), high)
                place, far = row * width + column, along * np.sqrt(u * u + v * v + 1.0)
                if keeps_all:
                    pixel[count], hit_face[count], distance[count] = place, face, far
                    count += 1
                elif far < nearest[place]:
                    first_face[place], nearest[place] = face, far
    return t, pixel[:count], hit_face[:count], distance[:count]


@_Compiled
def _nearest(pixel, face, distance, pixels, layers):
    ends = np.zeros(pixels + 1, np.int32)
    for i in range(len(pixel)):
        ends[pixel[i] + 1] += 1
    for p in range(pixels):
        ends[p + 1] += ends[p]
    # Sort hits by pixel; `ends` moves from each pixel's first slot to behind its last.
    near_face = np.empty(len(pixel), np.int32)
    near = np.empty(len(pixel), np.float64)
    for i in range(len(pixel)):
        place = ends[pixel[i]]
        near_face[place] = face[i]
        near[place] = distance[i]
        ends[pixel[i]] = place + 1
    # Sort the nearest hits of each pixel into its first slots.
    kept = np.empty(pixels, np.int32)
    per_layer = np.zeros(layers + 1, np.int64)
    start = 0
    for p in range(pixels):
        count = 0
        for i in range(start, ends[p]):
            along, number = near[i], near_face[i]
            if count < layers:
                place = start + count
                count += 1
            elif along < near[start + count - 1]:
                place = start + count - 1
            else:
                continue
            while place > start and along < near[place - 1]:
                near[place] = near[place - 1]
                near_face[place] = near_face[place - 1]
                place -= 1
            near[place] = along
            near_face[place] = number
        for rank in range(count):
            per_layer[rank + 1] += 1
        kept[p] = count
        start = ends[p]
    for rank in range(layers):
        per_layer[rank + 1] += per_layer[rank]
    index = np.empty(per_layer[layers], np.int64)
    out_face = np.empty(per_layer[layers], np.int32)
    out_distance = np.empty(per_layer[layers], np.float64)
    start = 0
    for p in range(pixels):
        for rank in range(kept[p]):
            place = per_layer[rank]
            per_layer[rank] = place + 1
            index[place] = np.int64(rank) * pixels + p
            out_face[place] = near_face[start + rank]
            out_distance[place] = near[start + rank]
        start = ends[p]
    return index, out_face, out_distance


@_Compiled
def _keep_first(pixel, face, distance, first, nearest):
    for i in range(len(pixel)):
        p = pixel[i]
        if distance[i] < nearest[p]:
            nearest[p] = distance[i]
            first[p] = face[i]


@_Compiled
def _normals(vertices, faces, face):
    normals = np.empty((len(face), 3))
    for i in range(len(face)):
        f = face[i]
        x, y, z = _normal(vertices, faces[f, 0], faces[f, 1], faces[f, 2])
        length = np.sqrt(x * x + y * y + z * z)
        if not length > 0:
            length = 1.0
        normals[i, 0], normals[i, 1], normals[i, 2] = x / length, y / length, z / length
    return normals


@_inline
def _across(vertices, p, q):
    """The cross product of two corners; its product with a ray tells which side the ray is on."""
    return (
        vertices[p, 1] * vertices[q, 2] - vertices[p, 2] * vertices[q, 1],
        vertices[p, 2] * vertices[q, 0] - vertices[p, 0] * vertices[q, 2],
        vertices[p, 0] * vertices[q, 1] - vertices[p, 1] * vertices[q, 0],
    )


@_inline
def _sides(vertices, faces, f):
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    return _across(vertices, b, c), _across(vertices, c, a), _across(vertices, a, b)


@_inline
def _weigh(sides, u, v):
    """The barycentric weights of the point of a face with these sides on the ray (u, v, -1)."""
    p, q, r = sides
    wa = p[0] * u + p[1] * v - p[2]
    wb = q[0] * u + q[1] * v - q[2]
    wc = r[0] * u + r[1] * v - r[2]
    # All three have the sign of the face's side; snapping can leave one a hair outside.
    if wa + wb + wc < 0:
        wa, wb, wc = -wa, -wb, -wc
    wa, wb, wc = max(wa, 0.0), max(wb, 0.0), max(wc, 0.0)
    total = wa + wb + wc
    if total > 0:
        return wa / total, wb / total, wc / total
    return 1 / 3, 1 / 3, 1 / 3


@_Compiled
def _weights(vertices, faces, ray_x, ray_y, face, pixel):
    weights = np.empty((len(face), 3))
    width = len(ray_x)
    for i in range(len(face)):
        u, v = ray_x[pixel[i] % width], ray_y[pixel[i] // width]
        weights[i, 0], weights[i, 1], weights[i, 2] = _weigh(_sides(vertices, faces, face[i]), u, v)
    return weights


@_Compiled
def _weights_along(vertices, faces, face, ray_x, ray_y):
    weights = np.empty((len(face), 3))
    for i in range(len(face)):
        weights[i, 0], weights[i, 1], weights[i, 2] = _weigh(
            _sides(vertices, faces, face[i]), ray_x[i], ray_y[i]
        )
    return weights


@_Compiled
def _smooth_normals(vertices, faces, corners, rotation, face, weights):
    normals = np.empty((len(face), 3))
    for i in range(len(face)):
        f = face[i]
        wa, wb, wc = weights[i, 0], weights[i, 1], weights[i, 2]
        sx = wa * corners[f, 0, 0] + wb * corners[f, 1, 0] + wc * corners[f, 2, 0]
        sy = wa * corners[f, 0, 1] + wb * corners[f, 1, 1] + wc * corners[f, 2, 1]
        sz = wa * corners[f, 0, 2] + wb * corners[f, 1, 2] + wc * corners[f, 2, 2]
        x = sx * rotation[0, 0] + sy * rotation[1, 0] + sz * rotation[2, 0]
        y = sx * rotation[0, 1] + sy * rotation[1, 1] + sz * rotation[2, 1]
        z = sx * rotation[0, 2] + sy * rotation[1, 2] + sz * rotation[2, 2]
        length = np.sqrt(x * x + y * y + z * z)
        if not (np.isfinite(length) and length > 1e-12):
            x, y, z = _normal(vertices, faces[f, 0], faces[f, 1], faces[f, 2])
            length = np.sqrt(x * x + y * y + z * z)
            if not length > 0:
                length = 1.0
        normals[i, 0], normals[i, 1], normals[i, 2] = x / length, y / length, z / length
    return normals


@_inline
def _is_fine(vertices, faces, f, u, v, member, rays, uvs, size_x, size_y):
    """Whether the rays that are a `member` meet face `f` more than `FINE` texels apart."""
    low_x, low_y, high_x, high_y = np.inf, np.inf, -np.inf, -np.inf
    sides = _sides(vertices, faces, f)
    for ray in range(rays):
        if not member[ray]:
            continue
        wa, wb, wc = _weigh(sides, u[ray], v[ray])
        x = (wa * uvs[f, 0, 0] + wb * uvs[f, 1, 0] + wc * uvs[f, 2, 0]) * size_x
        y = (wa * uvs[f, 0, 1] + wb * uvs[f, 1, 1] + wc * uvs[f, 2, 1]) * size_y
        low_x, low_y = min(low_x, x), min(low_y, y)
        high_x, high_y = max(high_x, x), max(high_y, y)
    return high_x - low_x > FINE or high_y - low_y > FINE


@_Compiled
def _samples(vertices, faces, ray_x, ray_y, face, side, uvs, slot, texels):
    wide, rays = len(ray_x), side * side
    width, height = wide // side, len(ray_y) // side
    # What each row reaches to, in pixels.
    left, right = np.full(height, width), np.zeros(height, np.int64)
    most = 0
    for row in range(height):
        for i in range(row * side, (row + 1) * side):
            begin, end = 0, wide
            while begin < wide and face[i * wide + begin] < 0:
                begin += 1
            while end > begin and face[i * wide + end - 1] < 0:
                end -= 1
            if begin < end:
                left[row] = min(left[row], begin // side)
                right[row] = max(right[row], (end - 1) // side + 1)
        most += max(right[row] - left[row], 0) * rays
    pixel, found = np.empty(most, np.int32), np.empty(most, np.int32)
    number = np.empty(most, np.int32)
    x, y = np.empty(most), np.empty(most)
    hit, u, v = np.empty(rays, np.int64), np.empty(rays), np.empty(rays)
    member = np.zeros(rays, np.bool_)
    n = 0
    for row in range(height):
        for column in range(left[row], right[row]):
            nothing, ray = True, 0
            for i in range(row * side, (row + 1) * side):
                for j in range(column * side, (column + 1) * side):
                    hit[ray] = face[i * wide + j]
                    u[ray], v[ray] = ray_x[j], ray_y[i]
                    nothing &= hit[ray] < 0
                    ray += 1
            if nothing:
                continue
            for ray in range(rays):
                f = hit[ray]
                if f < 0:
                    continue
                count, middle_x, middle_y = 0, 0.0, 0.0
                for other in range(ray, rays):
                    member[other] = hit[other] == f
                    if member[other]:
                        count += 1
                        middle_x += u[other]
                        middle_y += v[other]
                material = slot[f] if len(slot) else 0
                size_x, size_y = texels[material, 0], texels[material, 1]
                fine = (
                    size_x > 0
                    and count > 1
                    and _is_fine(vertices, faces, f, u, v, member, rays, uvs, size_x, size_y)
                )
                if not fine:
                    pixel[n], found[n], number[n] = row * width + column, f, count
                    x[n], y[n] = middle_x / count, middle_y / count
                    n += 1
                for other in range(ray, rays):
                    if member[other]:
                        hit[other] = -1
                        if fine:
                            pixel[n], found[n], number[n] = row * width + column, f, 1
                            x[n], y[n] = u[other], v[other]
                            n += 1
                    member[other] = False
    return pixel[:n], found[:n], number[:n], x[:n], y[:n]


@_Compiled
def _interpolate(values, face, weights):
    channels = values.shape[2]
    mixed = np.empty((len(face), channels))
    for i in range(len(face)):
        f = face[i]
        for channel in range(channels):
            mixed[i, channel] = (
                weights[i, 0] * values[f, 0, channel]
                + weights[i, 1] * values[f, 1, channel]
                + weights[i, 2] * values[f, 2, channel]
            )
    return mixed


@_inline
def _texel(coordinate, size, wrap, down):
    if not np.isfinite(coordinate):
        coordinate = 0.0
    if wrap == REPEAT:
        coordinate = coordinate - np.floor(coordinate)
    elif wrap == MIRROR:
        coordinate = coordinate - 2.0 * np.floor(coordinate * 0.5)
    else:
        coordinate = min(max(coordinate, -1.0), 2.0)
    if down:
        coordinate = 1.0 - coordinate
    return coordinate * size - 0.5


@_inline
def _place(i, size, wrap):
    """Stored index of the texel `i` of a row or column, or -1 for none."""
    if 0 <= i < size:
        return i
    if wrap == REPEAT:
        return i % size
    if wrap == MIRROR:
        i = i % (2 * size)
        return min(i, 2 * size - 1 - i)
    if wrap == EXTEND:
        return min(max(i, 0), size - 1)
    return -1


@_inline
def _value(texture, row, column, channel):
    if row < 0 or column < 0:
        return 0.0
    if channel >= texture.shape[2]:
        return 255.0
    return np.float64(texture[row, column, channel])


@_inline
def _four(texture, top, bottom, left, right, channel):
    return (
        _value(texture, top, left, channel),
        _value(texture, top, right, channel),
        _value(texture, bottom, left, channel),
        _value(texture, bottom, right, channel),
    )


@_inline
def _mixed(a, b, c, d, x, y):
    upper = a + (b - a) * x
    lower = c + (d - c) * x
    return (upper + (lower - upper) * y) / 255.0


@_Compiled
def _sample(texture, uv, wrap, linear, samples):
    """Fill samples (K, 3 or 4) with the texture's channels at uv (K, 2)."""
    height, width = texture.shape[0], texture.shape[1]
    for i in range(len(uv)):
        x = _texel(uv[i, 0], width, wrap, False)
        y = _texel(uv[i, 1], height, wrap, True)
        if not linear:
            x, y = np.floor(x + 0.5), np.floor(y + 0.5)
        column, row = np.floor(x), np.floor(y)
        x -= column
        y -= row
        left, top = _place(np.int64(column), width, wrap), _place(np.int64(row), height, wrap)
        right = _place(np.int64(column) + 1, width, wrap)
        bottom = _place(np.int64(row) + 1, height, wrap)
        inside = left >= 0 and right >= 0 and top >= 0 and bottom >= 0
        for channel in range(3):
            if inside:
                a = np.float64(texture[top, left, channel])
                b = np.float64(texture[top, right, channel])
                c = np.float64(texture[bottom, left, channel])
                d = np.float64(texture[bottom, right, channel])
                samples[i, channel] = _mixed(a, b, c, d, x, y)
            else:
                samples[i, channel] = _mixed(
                    *_four(texture, top, bottom, left, right, channel), x, y
                )
        if samples.shape[1] > 3:
            samples[i, 3] = _mixed(*_four(texture, top, bottom, left, right, 3), x, y)


@_inline
def _on_curve(table, value):
    place = value * STEPS
    if not place > 0:  # NaN too
        return table[0]
    if place >= STEPS:
        return table[STEPS]
    step = np.int64(place)
    low = table[step]
    return low + (table[step + 1] - low) * (place - step)


@_Compiled
def _lit(
    normal,
    ray,
    color,
    sky,
    ground,
    up,
    directions,
    strengths,
    to_linear,
    to_srgb,
    shown,
):
    same = len(color) == 1
    for i in range(len(normal)):
        x, y, z = np.float64(normal[i, 0]), np.float64(normal[i, 1]), np.float64(normal[i, 2])
        if x * ray[i, 0] + y * ray[i, 1] + z * ray[i, 2] > 0:
            x, y, z = -x, -y, -z
        share = 0.5 + 0.5 * (x * up[0] + y * up[1] + z * up[2])
        light = ground + (sky - ground) * share
        for sun in range(len(strengths)):
            towards = x * directions[sun, 0] + y * directions[sun, 1] + z * directions[sun, 2]
            light += strengths[sun] * max(towards, 0.0)
        for channel in range(3):
            own = _on_curve(to_linear, np.float64(color[0 if same else i, channel]))
            shown[i, channel] = _on_curve(to_srgb, own * light)


@_Compiled
def _picture(pixel, count, color, pixels, rays):
    total = np.zeros(pixels, np.int32)
    sums = np.zeros((pixels, 3), np.int32)
    for i in range(len(pixel)):
        p = pixel[i]
        total[p] += count[i]
        for channel in range(3):
            step = np.int64(color[i, channel] * np.float32(PICTURE_STEPS) + np.float32(0.5))
            sums[p, channel] += step * count[i]
    image = np.zeros((pixels, 4), np.uint8)
    for p in range(pixels):
        if total[p] == 0:
            continue
        share = np.int64(total[p]) * PICTURE_STEPS
        for channel in range(3):
            image[p, channel] = (2 * 255 * np.int64(sums[p, channel]) + share) // (2 * share)
        image[p, 3] = (2 * 255 * np.int64(total[p]) + rays) // (2 * rays)
    return image
