"""The kernel of `cast` in array code; needs only NumPy.

`compiled_kernel` has the same functions and gives bitwise identical hits. Everything that affects a
hit or its position is therefore computed in individually rounded operations, never in sums whose
order NumPy or BLAS may choose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..color import TO_LINEAR, TO_SRGB, on_curve
from ..surface import Material
from .scene import GUARD_PIXELS, NEAREST, SNAP, SNAP_BITS, Floats, Hits, Ints, Scene, clip

# Vertices processed at once, so that they stay in the cache.
VERTICES_AT_ONCE = 1 << 13
# Faces, rows of faces and hits processed at once, to limit the memory.
FACES_AT_ONCE = 1 << 16
CELLS_AT_ONCE = 1 << 20
# If a pixel's rays hit a face farther apart than this, in texels, each is shaded. Even with a noise
# texture, the mean difference to shading all rays is then below 1/255.
FINE = 1 / 3
# Integer steps of 0..1 in which a pixel's colours are added.
PICTURE_STEPS = (1 << 16) - 1

# For faces (F,): unnormalised normal (x, y, z), offset, least and greatest depth.
Planes = tuple[tuple[Floats, ...], Floats, Floats, Floats]
# Distances (K,) along rays with x, y (K,) at z = -1 to faces (K,), given by index.
Measured = Callable[[Planes, Ints, Floats, Floats], Floats]


def moved(
    vertices: NDArray[np.floating[Any]], position: Floats, rotation: Floats
) -> tuple[Floats, float]:
    """See `scene.Moved`."""
    seen = np.empty((len(vertices), 3))
    extremes = [0.0]
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, len(vertices), VERTICES_AT_ONCE):
            here = slice(start, start + VERTICES_AT_ONCE)
            x, y, z = np.ascontiguousarray((vertices[here] - position).T)
            for axis, (right, up, back) in enumerate(rotation.T):
                values = x * right + y * up + z * back
                seen[here, axis] = values
                extremes += [values.max(), -values.min()]
    return seen, float(np.max(extremes))  # NaN if any value is NaN


def hits(scene: Scene) -> Iterator[Hits]:
    """All pairs of a face and a pixel whose ray hits it, in several parts."""
    return _hits(scene, _distances)


def _hits(scene: Scene, measured: Measured) -> Iterator[Hits]:
    ahead = -scene.vertices[:, 2]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        x = scene.focal * scene.vertices[:, 0] / ahead + scene.shift_x
        y = -scene.focal * scene.vertices[:, 1] / ahead + scene.shift_y
        before = ahead > scene.near
        regular = before & (np.abs(x) < GUARD_PIXELS) & (np.abs(y) < GUARD_PIXELS)
    all_regular = bool(regular.all())
    if not all_regular:
        x, y = np.where(regular, x, 0.0), np.where(regular, y, 0.0)
    x, y = np.rint(x * SNAP).astype(np.int64), np.rint(y * SNAP).astype(np.int64)

    odd = []
    for start in range(0, len(scene.faces), FACES_AT_ONCE):
        # Short axes are slow to reduce over, so corners come first.
        corners = np.ascontiguousarray(scene.faces[start : start + FACES_AT_ONCE].T)
        face = np.arange(start, start + corners.shape[1])
        if not all_regular:
            whole = regular[corners].all(axis=0)
            odd.append(face[~whole & before[corners].any(axis=0)])
            face, corners = face[whole], corners[:, whole]
        yield from _scan(scene, measured, face, x[corners], y[corners])
    if any(map(len, odd)):
        yield from _scan(scene, measured, *clip(scene, np.concatenate(odd)))


def _scan(scene: Scene, measured: Measured, face: Ints, x: Ints, y: Ints) -> Iterator[Hits]:
    """The hits of snapped triangles x, y (3, T) that belong to faces (T,).

    Rows, and the span of columns in each row, are half open. This is equivalent to moving the rays
    by an infinitesimal.
    """
    low, high = _extent(y)
    left, right = _extent(x)
    first = np.maximum(-(-low >> SNAP_BITS), 0)
    rows = np.minimum(-(-high >> SNAP_BITS), scene.height) - first
    columns = np.minimum(-(-right >> SNAP_BITS), scene.width) - np.maximum(-(-left >> SNAP_BITS), 0)
    seen = np.flatnonzero((rows > 0) & (columns > 0))
    first, rows, face = first[seen], rows[seen], face[seen]
    x, y = x[:, seen], y[:, seen]
    for a, b in ((0, 1), (1, 2), (0, 1)):  # corners by height
        swap = y[a] > y[b]
        x[a], x[b] = np.where(swap, x[b], x[a]), np.where(swap, x[a], x[b])
        y[a], y[b] = np.where(swap, y[b], y[a]), np.where(swap, y[a], y[b])
    for part in _parts(rows):
        yield from _scan_rows(
            scene, measured, face[part], x[:, part], y[:, part], first[part], rows[part]
        )


def _scan_rows(
    scene: Scene, measured: Measured, face: Ints, x: Ints, y: Ints, first: Ints, rows: Ints
) -> Iterator[Hits]:
    """`_scan` of triangles with sorted corners that cover `rows` rows starting at `first`."""
    owner = np.repeat(np.arange(len(face)), rows)
    row = np.arange(len(owner)) - np.repeat(np.cumsum(rows) - rows - first, rows)
    level = row << SNAP_BITS
    (xa, xb, xc), (ya, yb, yc) = x[:, owner], y[:, owner]
    long_edge = _first_column(xa, ya, xc, yc, level)
    # One of the two short edges crosses the row.
    lower = level < yb
    short_edge = _first_column(
        np.where(lower, xa, xb),
        np.where(lower, ya, yb),
        np.where(lower, xb, xc),
        np.where(lower, yb, yc),
        level,
    )
    left = np.maximum(np.minimum(long_edge, short_edge), 0)
    length = np.minimum(np.maximum(long_edge, short_edge), scene.width) - left

    full = np.flatnonzero(length > 0)
    left, length, owner, row = left[full], length[full], owner[full], row[full]
    planes = _planes(scene, face)
    for part in _parts(length):
        triangle = np.repeat(owner[part], length[part])
        ends = np.cumsum(length[part])
        column = np.arange(len(triangle)) - np.repeat(
            ends - length[part] - left[part], length[part]
        )
        line = np.repeat(row[part], length[part])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            far = measured(planes, triangle, scene.ray_x[column], scene.ray_y[line])
        yield line * scene.width + column, face[triangle], far


def _distances(planes: Planes, triangle: Ints, ray_x: Floats, ray_y: Floats) -> Floats:
    """The distances (K,) at which rays (K,) hit triangles (K,)."""
    normal, offset, nearest, farthest = planes
    along = offset[triangle] / (
        normal[0][triangle] * ray_x + normal[1][triangle] * ray_y - normal[2][triangle]
    )
    # The distance to a face seen edge-on is ill-defined, so it is clamped to its corners' depths.
    along = np.where(np.isfinite(along), along, farthest[triangle])
    along = np.clip(along, nearest[triangle], farthest[triangle])
    return along * np.sqrt(ray_x * ray_x + ray_y * ray_y + 1.0)


def ranks(planes: Planes, triangle: Ints, ray_x: Floats, ray_y: Floats) -> Floats:
    """-1 / depth, which sorts a ray's hits in the order of `_distances` and is linear in x, y."""
    normal, offset, nearest, farthest = planes
    slope = -normal[0] / offset
    rank = slope[triangle] * ray_x + (
        (normal[2][triangle] - normal[1][triangle] * ray_y) / offset[triangle]
    )
    lowest = (-1.0 / np.maximum(nearest, NEAREST))[triangle]
    highest = (-1.0 / farthest)[triangle]
    rank = np.where(rank < highest, rank, highest)
    return np.where(rank > lowest, rank, lowest)


def _parts(sizes: Ints) -> Iterator[slice]:
    """Slices of (N,) with a total size of at most CELLS_AT_ONCE, or with a single element."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        done = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, done + CELLS_AT_ONCE, side="right")), start + 1)
        yield slice(start, stop)
        start = stop


def _extent(values: Ints) -> tuple[Ints, Ints]:
    """Least and greatest of (3, T) over the first axis."""
    a, b, c = values
    return np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)


def _first_column(xa: Ints, ya: Ints, xb: Ints, yb: Ints, level: Ints) -> Ints:
    """The first whole column at or right of the edge a-b on each row; ya < yb."""
    rise = yb - ya
    across = (xb - xa) * (level - ya) + xa * rise
    return -(-across // (rise << SNAP_BITS))


def _planes(scene: Scene, face: Ints) -> Planes:
    corners = scene.faces[face]
    a, b, c = (scene.vertices[corners[:, i]].T for i in range(3))
    with np.errstate(invalid="ignore", over="ignore"):
        normal = _cross(b - a, c - a)
        offset = normal[0] * a[0] + normal[1] * a[1] + normal[2] * a[2]
    ahead = -np.stack([a[2], b[2], c[2]])
    return normal, offset, np.maximum(ahead.min(axis=0), 0.0), ahead.max(axis=0)


def _cross(p: Floats, q: Floats) -> tuple[Floats, ...]:
    """Cross product of (3, K)."""
    return p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]


def nearest(found: Hits, pixels: int, layers: int) -> tuple[NDArray[np.int64], Ints, Floats]:
    """The `layers` nearest hits of each pixel, by layer and then by pixel.

    Hits at the same distance keep their order. Returns layer * pixels + pixel (K,), the face (K,)
    and the distance (K,).
    """
    pixel, face, distance = found
    # At most 50 bits: the steps are computed in doubles, where larger integers are not exact.
    bits = min(62 - int(pixels).bit_length(), 50)
    least, greatest = distance.min(initial=0.0), distance.max(initial=0.0)
    extent = float(greatest - least) or 1.0
    steps = ((distance - least) / extent * ((1 << bits) - 1)).astype(np.int64)
    order = np.argsort((pixel << bits) | steps, kind="stable")
    where, along = pixel[order], distance[order]
    wrong = np.flatnonzero((where[1:] == where[:-1]) & (along[1:] < along[:-1]))
    if len(wrong):  # less than a step apart
        mixed = np.zeros(pixels, dtype=bool)
        mixed[where[wrong]] = True
        at = np.flatnonzero(mixed[where])
        order[at] = order[at][np.lexsort((order[at], along[at], where[at]))]
    place = np.arange(len(where))
    starts = np.empty(len(where), dtype=bool)
    starts[:1] = True
    np.not_equal(where[1:], where[:-1], out=starts[1:])
    rank = place - np.maximum.accumulate(np.where(starts, place, 0))
    kept = rank < layers
    order, rank = order[kept], rank[kept]
    # By layer first; ranks are few, so this is a counting sort.
    by_layer = np.argsort(rank.astype(np.uint16) if layers < 1 << 16 else rank, kind="stable")
    order, rank = order[by_layer], rank[by_layer]
    return rank * pixels + pixel[order], face[order], distance[order]


def first_hits(scene: Scene, face: Ints, rank: Floats) -> None:
    """`keep_first` for all hits, ordered by their `ranks`."""
    for found in _hits(scene, ranks):
        keep_first(found, face, rank)


def keep_first(found: Hits, face: Ints, distance: Floats) -> None:
    """Update `face` and `distance` (H * W,) in place with those hits in `found` that are nearer."""
    pixel, there, along = nearest(found, len(face), 1)
    nearer = along < distance[pixel]
    pixel = pixel[nearer]
    face[pixel], distance[pixel] = there[nearer], along[nearer]


def samples(
    scene: Scene, face: Ints, side: int, uvs: NDArray[np.floating[Any]], slot: Ints, texels: Floats
) -> tuple[Ints, Ints, Ints, Floats, Floats]:
    """The shading points of a picture whose pixels are `side` x `side` pixels of the scene.

    face (H * W,) : the nearest face at each of the scene's pixels, or -1. uvs (M, 3, 2) : of the
    corners. slot (M,) : each face's row in `texels`; may be empty for a single material.
    texels (K, 2) : width and height of each material's texture, 0 for none.

    A face is shaded once per pixel, at the mean of the rays that hit it, or at each of them if
    they are more than `FINE` texels apart. Returns for each point its pixel (N,), face (N,), the
    number of rays that it represents (N,), and x and y of its ray at z = -1 (N,).
    """
    height, width = scene.height // side, scene.width // side
    rays = side * side
    grid = face.reshape(height, side, width, side).transpose(1, 3, 0, 2).reshape(rays, -1)
    pixel = np.flatnonzero((grid >= 0).any(axis=0))
    grid = grid[:, pixel]
    row, column = np.divmod(pixel, width)
    ray_x = np.stack([scene.ray_x[column * side + ray % side] for ray in range(rays)])
    ray_y = np.stack([scene.ray_y[row * side + ray // side] for ray in range(rays)])
    parts = []
    for ray in range(rays):
        first = grid[ray] >= 0
        for earlier in range(ray):
            first &= grid[earlier] != grid[ray]
        at = np.flatnonzero(first)
        there = grid[ray, at]
        member = grid[:, at] == there
        count = member.sum(axis=0)
        x, y = ray_x[:, at], ray_y[:, at]
        middle_x, middle_y = (np.where(member, values, 0.0) for values in (x, y))
        fine = _is_fine(scene, there, member, x, y, uvs, slot, texels)
        parts.append(
            (
                pixel[at][~fine],
                there[~fine],
                count[~fine],
                (_sum(middle_x) / count)[~fine],
                (_sum(middle_y) / count)[~fine],
            )
        )
        which, of = np.nonzero(member & fine)
        parts.append((pixel[at][of], there[of], np.ones_like(of), x[which, of], y[which, of]))
    at_pixel, at_face, count, x, y = (np.concatenate(values) for values in zip(*parts, strict=True))
    return at_pixel, at_face, count, x, y


def _sum(values: Floats) -> Floats:
    """The sum over the first axis, added in order."""
    total = values[0].copy()
    for row in values[1:]:
        total += row
    return total


def _is_fine(
    scene: Scene,
    face: Ints,
    member: NDArray[np.bool_],
    ray_x: Floats,
    ray_y: Floats,
    uvs: NDArray[np.floating[Any]],
    slot: Ints,
    texels: Floats,
) -> NDArray[np.bool_]:
    """Whether the rays (R, K) in `member` hit faces (K,) more than `FINE` texels apart."""
    fine = np.zeros(len(face), dtype=bool)
    size = texels[slot[face]] if len(slot) else np.broadcast_to(texels[0], (len(face), 2))
    at = np.flatnonzero((size[:, 0] > 0) & (member.sum(axis=0) > 1))
    if not len(at):
        return fine
    low, high = np.full((2, len(at), 2), np.inf)
    high = -high
    for ray in range(len(member)):
        weight = weights_along(scene, face[at], ray_x[ray, at], ray_y[ray, at])
        texel = interpolate(uvs, face[at], weight) * size[at]
        inside = member[ray, at][:, None]
        low = np.minimum(low, np.where(inside, texel, np.inf))
        high = np.maximum(high, np.where(inside, texel, -np.inf))
    fine[at] = (high - low > FINE).any(axis=1)
    return fine


def normals(scene: Scene, face: Ints) -> Floats:
    """Unit normals (K, 3) of faces (K,); zero for faces without area."""
    used = np.zeros(len(scene.faces), dtype=bool)
    used[face] = True
    listed = np.flatnonzero(used)
    row = np.zeros(len(scene.faces), dtype=np.int32)
    row[listed] = np.arange(len(listed))
    normal = np.stack(_planes(scene, listed)[0], axis=1)
    return unit(normal)[row[face]]


def unit(vectors: Floats) -> Floats:
    """Vectors (N, 3) normalised to length 1; zero vectors stay zero."""
    x, y, z = vectors.T
    length = np.sqrt(x * x + y * y + z * z)
    return vectors / np.where(length > 0, length, 1.0)[:, None]


def smooth_normals(
    scene: Scene, corners: NDArray[np.floating[Any]], rotation: Floats, face: Ints, weights: Floats
) -> Floats:
    """Unit normals (K, 3) in camera space, interpolated from corner normals (M, 3, 3) in world
    space; the face normal if these cancel out. rotation (3, 3) : columns are the camera's axes."""
    x, y, z = interpolate(corners, face, weights).T
    with np.errstate(invalid="ignore", over="ignore"):
        x, y, z = (x * rotation[0, i] + y * rotation[1, i] + z * rotation[2, i] for i in range(3))
        length = np.sqrt(x * x + y * y + z * z)
    usable = np.isfinite(length) & (length > 1e-12)
    length = np.where(usable, length, 1.0)
    smooth = np.stack([x / length, y / length, z / length], axis=1)
    if not usable.all():
        smooth[~usable] = normals(scene, face[~usable])
    return smooth


def weights(scene: Scene, face: Ints, pixel: Ints) -> Floats:
    """Barycentric weights (K, 3) of the points at which the rays of pixels (K,) hit faces (K,)."""
    row, column = np.divmod(pixel, scene.width)
    return weights_along(scene, face, scene.ray_x[column], scene.ray_y[row])


def weights_along(scene: Scene, face: Ints, ray_x: Floats, ray_y: Floats) -> Floats:
    """`weights` for the rays with x and y (K,) at z = -1."""
    corners = scene.faces[face]
    a, b, c = (scene.vertices[corners[:, i]].T for i in range(3))
    with np.errstate(invalid="ignore", over="ignore"):
        share = np.empty((3, len(face)))
        for out, (p, q) in zip(share, ((b, c), (c, a), (a, b)), strict=True):
            x, y, z = _cross(p, q)
            out[:] = x * ray_x + y * ray_y - z
        # The sign of all three is that of the visible side; snapping can leave one just outside.
        share = np.where(share[0] + share[1] + share[2] < 0, -share, share)
        share = np.maximum(share, 0.0)
        total = share[0] + share[1] + share[2]
        return np.where(total > 0, share / np.where(total > 0, total, 1.0), 1 / 3).T


def interpolate(values: NDArray[np.floating[Any]], face: Ints, weights: Floats) -> Floats:
    """Corner values (M, 3, C) interpolated inside faces (K,) with weights (K, 3)."""
    a, b, c = (values[face, i] for i in range(3))
    return weights[:, :1] * a + weights[:, 1:2] * b + weights[:, 2:] * c


def textured(
    material: Material, uvs: NDArray[np.floating[Any]], face: Ints, weights: Floats
) -> NDArray[np.float32]:
    """Texture colours (K, 3), sRGB-encoded 0..1, at points in faces (K,) given by weights."""
    assert material.texture is not None
    uv = interpolate(uvs, face, weights)
    found = sample(material.texture[:, :, :3], uv, material.wrap, material.interpolation)
    return found[:, :3].astype(np.float32)


def sample(texture: NDArray[np.uint8], uv: Floats, wrap: str, interpolation: str) -> Floats:
    """See `casting.sample_texture`."""
    height, width, channels = texture.shape
    texels = texture.reshape(-1, channels)
    x = _texel(uv[:, 0], width, wrap, down=False)
    y = _texel(uv[:, 1], height, wrap, down=True)
    if interpolation == "closest":
        row, column = (
            _place(np.floor(y + 0.5), height, wrap),
            _place(np.floor(x + 0.5), width, wrap),
        )
        return _values(texels, row, column, width) / 255.0
    left, top = np.floor(x), np.floor(y)
    right_share, lower_share = (x - left)[:, None], (y - top)[:, None]
    columns = _place(left, width, wrap), _place(left + 1, width, wrap)
    upper, lower = (
        start + (_values(texels, row, columns[1], width) - start) * right_share
        for row in (_place(top, height, wrap), _place(top + 1, height, wrap))
        for start in (_values(texels, row, columns[0], width),)
    )
    return (upper + (lower - upper) * lower_share) / 255.0


def _texel(coordinate: Floats, size: int, wrap: str, *, down: bool) -> Floats:
    """Coordinates (K,) in texels; integers are texel centres. `down` reverses the direction."""
    coordinate = np.nan_to_num(coordinate, posinf=0.0, neginf=0.0)
    if wrap == "repeat":
        coordinate = coordinate - np.floor(coordinate)
    elif wrap == "mirror":
        coordinate = coordinate - 2.0 * np.floor(coordinate * 0.5)
    else:
        coordinate = np.clip(coordinate, -1.0, 2.0)
    if down:
        coordinate = 1.0 - coordinate
    return coordinate * size - 0.5


def _place(position: NDArray[Any], size: int, wrap: str) -> NDArray[np.int64]:
    """Stored index of the texels (K,) of a row or column, or -1 for none."""
    place = position.astype(np.int64)
    if wrap == "repeat":
        return place % size
    if wrap == "mirror":
        place %= 2 * size
        return np.minimum(place, 2 * size - 1 - place)
    if wrap == "extend":
        return np.clip(place, 0, size - 1)
    return np.where((place >= 0) & (place < size), place, -1)


def _values(
    texels: NDArray[np.uint8], row: NDArray[np.int64], column: NDArray[np.int64], width: int
) -> Floats:
    """RGBA (K, 4) in 0..255 of texels (h * w, C)."""
    outside = (row < 0) | (column < 0)
    values = np.empty((len(row), 4))
    values[:, 3] = 255.0
    values[:, : texels.shape[1]] = texels[np.where(outside, 0, row * width + column)]
    values[outside] = 0.0
    return values


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
    """See `pictures.shading.lit`; the other arguments are the fields of `Lights`."""
    x, y, z = np.asarray(normal, dtype=np.float64).T
    away = x * ray[:, 0] + y * ray[:, 1] + z * ray[:, 2] > 0
    x, y, z = (np.where(away, -values, values) for values in (x, y, z))
    share = 0.5 + 0.5 * (x * up[0] + y * up[1] + z * up[2])
    light = ground + (sky - ground) * share
    for direction, strength in zip(directions, strengths, strict=True):
        towards = x * direction[0] + y * direction[1] + z * direction[2]
        light = light + strength * np.maximum(towards, 0.0)
    shown = on_curve(TO_SRGB, on_curve(TO_LINEAR, color) * light[:, None])
    return shown.astype(np.float32)


def picture(
    pixel: Ints, count: Ints, color: NDArray[np.float32], pixels: int, rays: int
) -> NDArray[np.uint8]:
    """RGBA (pixels, 4), straight alpha, from shaded samples: colours (N, 3) in 0..1 that represent
    `count` (N,) of a pixel's `rays`. Colours are added as integers, so their order is irrelevant.
    """
    steps = (color * np.float32(PICTURE_STEPS) + np.float32(0.5)).astype(np.int64)
    total = np.bincount(pixel, count, pixels).astype(np.int64)
    image = np.zeros((pixels, 4), dtype=np.uint8)
    share = np.maximum(total, 1) * PICTURE_STEPS
    for channel in range(3):
        sums = np.bincount(pixel, steps[:, channel] * count, pixels).astype(np.int64)
        image[:, channel] = (2 * 255 * sums + share) // (2 * share)
    image[:, 3] = (2 * 255 * total + rays) // (2 * rays)
    return image
