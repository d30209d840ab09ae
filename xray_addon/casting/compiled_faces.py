"""Hits, normals and samples of faces in the compiled kernel; see `compiled_kernel`."""

# numba infers the types of what it compiles.
# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs

from __future__ import annotations

import numpy as np

from ..compiling import Compiled, inline
from .array_kernel import FINE
from .scene import GUARD_PIXELS, NEAREST, SNAP, SNAP_BITS

FACES_AT_ONCE = 1 << 12
# The x of vertices outside the grid. Their y is 1 if they are in front of the camera.
IRREGULAR = -(1 << 31)
NO_SIDES = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))


@Compiled
def moved(vertices, position, rotation):
    """See `array_kernel.moved`."""
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


@Compiled
def project(vertices, focal, shift_x, shift_y, near):
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


@Compiled
def odd_faces(points, faces):
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


@inline
def _first_column(xa, ya, xb, yb, level):
    rise = yb - ya
    across = (xb - xa) * (level - ya) + xa * rise
    return -((-across) // (rise << SNAP_BITS))


@inline
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


@inline
def _grown(values, capacity):
    more = np.empty(capacity, values.dtype)
    more[: len(values)] = values
    return more


@inline
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


@Compiled
def collect(
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
    (H * W,) : if not empty, the nearest face of each pixel and its `array_kernel.ranks` are
    updated in these instead, and no hits are returned.
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
            if not keeps_all:
                # A hit's rank is linear along the row: no division or square root per pixel.
                slope, start_rank = -x / offset, (z - y * v) / offset
                lowest, highest = -1.0 / max(low, NEAREST), -1.0 / high
                for column in range(left, right):
                    rank = slope * ray_x[column] + start_rank
                    rank = rank if rank < highest else highest
                    rank = rank if rank > lowest else lowest
                    place = row * width + column
                    if rank < nearest[place]:
                        first_face[place], nearest[place] = face, rank
                continue
            for column in range(left, right):
                u = ray_x[column]
                along = offset / (x * u + y * v - z)
                # The distance to a face seen edge-on is ill-defined: clamp to the corners' depths.
                if not np.isfinite(along):
                    along = high
                along = min(max(along, low), high)
                pixel[count], hit_face[count] = row * width + column, face
                distance[count] = along * np.sqrt(u * u + v * v + 1.0)
                count += 1
    return t, pixel[:count], hit_face[:count], distance[:count]


@Compiled
def nearest(pixel, face, distance, pixels, layers):
    """See `array_kernel.nearest`."""
    ends = np.zeros(pixels + 1, np.int32)
    for i in range(len(pixel)):
        ends[pixel[i] + 1] += 1
    for p in range(pixels):
        ends[p + 1] += ends[p]
    # Sort hits by pixel; `ends` moves from each pixel's first slot to the one after its last.
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


@Compiled
def keep_first(pixel, face, distance, first, nearest):
    """See `array_kernel.keep_first`."""
    for i in range(len(pixel)):
        p = pixel[i]
        if distance[i] < nearest[p]:
            nearest[p] = distance[i]
            first[p] = face[i]


@Compiled
def normals(vertices, faces, face):
    """See `array_kernel.normals`."""
    normals = np.empty((len(face), 3))
    last, x, y, z = -1, 0.0, 0.0, 0.0  # neighbouring pixels mostly see the same face
    for i in range(len(face)):
        f = face[i]
        if f != last:
            last = f
            x, y, z = _normal(vertices, faces[f, 0], faces[f, 1], faces[f, 2])
            length = np.sqrt(x * x + y * y + z * z)
            if not length > 0:
                length = 1.0
            x, y, z = x / length, y / length, z / length
        normals[i, 0], normals[i, 1], normals[i, 2] = x, y, z
    return normals


@inline
def _across(vertices, p, q):
    """The cross product of two corners; its dot product with a ray gives the ray's side."""
    return (
        vertices[p, 1] * vertices[q, 2] - vertices[p, 2] * vertices[q, 1],
        vertices[p, 2] * vertices[q, 0] - vertices[p, 0] * vertices[q, 2],
        vertices[p, 0] * vertices[q, 1] - vertices[p, 1] * vertices[q, 0],
    )


@inline
def _sides(vertices, faces, f):
    """`_across` for the face's three edges, for `_weigh`."""
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    return _across(vertices, b, c), _across(vertices, c, a), _across(vertices, a, b)


@inline
def _weigh(sides, u, v):
    """The barycentric weights of the point where the ray (u, v, -1) hits a face; see `_sides`."""
    p, q, r = sides
    wa = p[0] * u + p[1] * v - p[2]
    wb = q[0] * u + q[1] * v - q[2]
    wc = r[0] * u + r[1] * v - r[2]
    # The sign of all three is that of the visible side; snapping can leave one just outside.
    if wa + wb + wc < 0:
        wa, wb, wc = -wa, -wb, -wc
    wa, wb, wc = max(wa, 0.0), max(wb, 0.0), max(wc, 0.0)
    total = wa + wb + wc
    if total > 0:
        return wa / total, wb / total, wc / total
    return 1 / 3, 1 / 3, 1 / 3


@Compiled
def weights(vertices, faces, ray_x, ray_y, face, pixel):
    """See `array_kernel.weights`."""
    weights = np.empty((len(face), 3))
    width = len(ray_x)
    last, sides = -1, NO_SIDES
    for i in range(len(face)):
        if face[i] != last:
            last, sides = face[i], _sides(vertices, faces, face[i])
        u, v = ray_x[pixel[i] % width], ray_y[pixel[i] // width]
        weights[i, 0], weights[i, 1], weights[i, 2] = _weigh(sides, u, v)
    return weights


@Compiled
def weights_along(vertices, faces, face, ray_x, ray_y):
    """See `array_kernel.weights_along`."""
    weights = np.empty((len(face), 3))
    last, sides = -1, NO_SIDES
    for i in range(len(face)):
        if face[i] != last:
            last, sides = face[i], _sides(vertices, faces, face[i])
        weights[i, 0], weights[i, 1], weights[i, 2] = _weigh(sides, ray_x[i], ray_y[i])
    return weights


@Compiled
def smooth_normals(vertices, faces, corners, rotation, face, weights):
    """See `array_kernel.smooth_normals`."""
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


@inline
def _is_fine(sides, f, u, v, member, rays, uvs, size_x, size_y):
    """Whether the rays in `member` hit face `f` more than `FINE` texels apart."""
    low_x, low_y, high_x, high_y = np.inf, np.inf, -np.inf, -np.inf
    for ray in range(rays):
        if not member[ray]:
            continue
        wa, wb, wc = _weigh(sides, u[ray], v[ray])
        x = (wa * uvs[f, 0, 0] + wb * uvs[f, 1, 0] + wc * uvs[f, 2, 0]) * size_x
        y = (wa * uvs[f, 0, 1] + wb * uvs[f, 1, 1] + wc * uvs[f, 2, 1]) * size_y
        low_x, low_y = min(low_x, x), min(low_y, y)
        high_x, high_y = max(high_x, x), max(high_y, y)
    return high_x - low_x > FINE or high_y - low_y > FINE


@inline
def _sums(values, side, repeated):
    """For each pixel, sum `values` over its rays by column, or by row if `repeated`."""
    sums = np.zeros(len(values) // side)
    for place in range(len(sums)):
        for i in range(side):
            for j in range(side):
                sums[place] += values[place * side + (i if repeated else j)]
    return sums


@Compiled
def samples(vertices, faces, ray_x, ray_y, face, side, uvs, slot, texels):
    """See `array_kernel.samples`."""
    wide, rays = len(ray_x), side * side
    width, height = wide // side, len(ray_y) // side
    most = 0
    for i in range(len(face)):
        most += face[i] >= 0
    pixel, found = np.empty(most, np.int32), np.empty(most, np.int32)
    number = np.empty(most, np.int32)
    x, y = np.empty(most), np.empty(most)
    hit, u, v = np.empty(rays, np.int64), np.empty(rays), np.empty(rays)
    member = np.zeros(rays, np.bool_)
    whole_x, whole_y = _sums(ray_x, side, False), _sums(ray_y, side, True)
    last, sides = -1, NO_SIDES
    n = 0
    for row in range(height):
        for column in range(width):
            at = row * side * wide + column * side
            one, same = face[at], True
            for i in range(side):
                for j in range(side):
                    same &= face[at + i * wide + j] == one
            if same and one < 0:
                continue
            if same and texels[slot[one] if len(slot) else 0, 0] == 0:
                # A shortcut for most pixels; the code below gives the same result.
                pixel[n], found[n], number[n] = row * width + column, one, rays
                x[n], y[n] = whole_x[column] / rays, whole_y[row] / rays
                n += 1
                continue
            ray = 0
            for i in range(side):
                for j in range(side):
                    hit[ray] = face[at + i * wide + j]
                    u[ray], v[ray] = ray_x[column * side + j], ray_y[row * side + i]
                    ray += 1
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
                fine = False
                if size_x > 0 and count > 1:
                    if f != last:
                        last, sides = f, _sides(vertices, faces, f)
                    fine = _is_fine(sides, f, u, v, member, rays, uvs, size_x, size_y)
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
