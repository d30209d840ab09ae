"""`cast`: every surface along every ray of a camera, exactly, without an acceleration structure.

An X-Ray is an A-buffer. The triangles are projected, the pixels whose ray passes through each
are listed, and the hits of a pixel are put in order. For the rays of a pinhole camera this is ray
casting: a pixel is covered exactly if its ray passes through the triangle.

Coverage is decided in integers. Projected vertices are snapped to a grid of `SNAP` steps a pixel
and a pixel's ray counts as moved by an infinitesimal (+x, then +y), so it is never on an edge.
Two triangles that share an edge therefore split the pixels along it without gap or overlap, and
where they fold back at a silhouette both or neither are hit: hits through a closed surface always
pair up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .camera import Camera
from .color import linear_to_srgb, srgb_to_linear
from .surface import Material, Surface
from .xray import XRay

SNAP_BITS = 15
SNAP = 1 << SNAP_BITS  # grid steps a pixel: a vertex moves at most 1.5e-5 px
# Vertices farther out are clipped, so that products of two differences fit 63 bits.
GUARD_PIXELS = 1 << 14
# Surfaces nearer than this share of the farthest vertex's distance are not seen.
NEAR = 1e-7

BACKENDS = ("auto", "numpy")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def cast(surface: Surface, camera: Camera, layers: int = 16, *, backend: str = "auto") -> XRay:
    """The X-Ray (layers, H, W) of `surface` seen by `camera`.

    Both sides of a surface are hit. The `layers` nearest hits of each ray are kept, front to
    back; `XRay.dropped` counts the others. Normals are interpolated where the surface has corner
    normals and the face's own where it has none; they are not turned to the viewer. Colours are
    sampled at the hit. Coincident faces give a hit each.

    Faces with NaN or infinite vertices and faces without area are not seen. Faces that cross the
    camera's plane are seen as far as they lie before it.

    Raises ValueError for `layers` < 1, an unknown `backend` and images wider or higher than
    8192 px.
    """
    if layers < 1:
        raise ValueError(f"layers must be at least 1, got {layers}")
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
    if max(camera.width, camera.height) > GUARD_PIXELS // 2:
        raise ValueError(
            f"an X-Ray can be at most {GUARD_PIXELS // 2} px wide and high, "
            f"got {camera.width}x{camera.height}"
        )
    rotation = camera.camera_to_world[:3, :3]
    finite = np.isfinite(surface.vertices).all(axis=1)
    vertices = np.where(finite[:, None], surface.vertices, camera.position)
    vertices = (vertices - camera.position) @ rotation
    faces = np.asarray(surface.faces, dtype=np.int64)
    valid = np.arange(len(faces)) if finite.all() else np.flatnonzero(finite[faces].all(axis=1))

    pixels = camera.width * camera.height
    seen, hit, pixel = _cover(vertices, faces, valid, camera)
    ray = _ray(pixel, camera)
    face_normal, distance = _distance(vertices, faces[seen], hit, ray)
    order, rank = _order(pixel, distance, pixels)
    kept = rank < layers
    dropped = len(order) - int(np.count_nonzero(kept))
    order, rank = order[kept], rank[kept]
    # By layer first; ranks are few, so this is a counting sort.
    by_layer = np.argsort(rank.astype(np.uint16), kind="stable")
    order, rank = order[by_layer], rank[by_layer]
    hit = hit[order]
    face = seen[hit]
    weights = _weights(surface, vertices, faces[face], ray[:, order])
    return XRay.from_hits(
        (layers, camera.height, camera.width),
        rank * pixels + pixel[order],
        distance[order],
        _normals(surface, face_normal, hit, face, weights, rotation),
        _colors(surface, face, weights),
        dropped,
    )


def _cover(vertices: Floats, faces: Ints, valid: Ints, camera: Camera) -> tuple[Ints, Ints, Ints]:
    """Every pair of a face and a pixel whose ray passes through it.

    vertices (N, 3) in camera space; valid : the faces to look at. Returns the faces that may be
    seen (F,) and for each pair the index into these (K,) and the flat pixel (K,).
    """
    assert camera.cx is not None
    assert camera.cy is not None
    ahead = -vertices[:, 2]
    near = NEAR * float(np.abs(vertices).max(initial=0.0))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # (col, row) of each vertex; rays pass at whole numbers.
        x = camera.focal * vertices[:, 0] / ahead + (camera.cx - camera.pixel_offset)
        y = -camera.focal * vertices[:, 1] / ahead + (camera.cy - camera.pixel_offset)
        regular = (ahead > near) & (np.abs(x) < GUARD_PIXELS) & (np.abs(y) < GUARD_PIXELS)
    snapped_x = np.rint(np.where(regular, x, 0.0) * SNAP).astype(np.int64)
    snapped_y = np.rint(np.where(regular, y, 0.0) * SNAP).astype(np.int64)

    corners = faces[valid].T  # (3, F): short axes are slow to reduce over
    if regular.all():
        face = valid
    else:
        whole = regular[corners].all(axis=0)
        odd = valid[~whole & (ahead[corners] > near).any(axis=0)]
        face, corners = valid[whole], corners[:, whole]
    corner_x, corner_y = snapped_x[corners], snapped_y[corners]
    if not regular.all() and len(odd):
        odd, odd_x, odd_y = _clip(vertices, faces, odd, near, camera)
        face = np.concatenate([face, odd])
        corner_x = np.concatenate([corner_x, odd_x], axis=1)
        corner_y = np.concatenate([corner_y, odd_y], axis=1)
    seen, triangle, pixel = _scan(corner_x, corner_y, camera.width, camera.height)
    return face[seen], triangle, pixel


def _clip(
    vertices: Floats, faces: Ints, face: Ints, near: float, camera: Camera
) -> tuple[Ints, Ints, Ints]:
    """Cut faces to what lies before the camera and inside the guard band.

    Returns the face (T,) and the snapped corners x, y (3, T) of the triangles that are left.
    The cut point of an edge is the same from both of its faces, bit for bit, so cuts leave no
    gaps.
    """
    assert camera.cx is not None
    assert camera.cy is not None
    margin = GUARD_PIXELS - 2
    shift_x, shift_y = camera.cx - camera.pixel_offset, camera.cy - camera.pixel_offset
    # A point is kept where plane . (x, y, z) >= offset.
    focal = camera.focal
    planes = [
        ((0.0, 0.0, -1.0), near),
        ((focal, 0.0, -(margin + shift_x)), 0.0),
        ((-focal, 0.0, -(margin - shift_x)), 0.0),
        ((0.0, -focal, -(margin + shift_y)), 0.0),
        ((0.0, focal, -(margin - shift_y)), 0.0),
    ]
    polygon = vertices[faces[face]]  # (P, V, 3); the first `count` corners are used
    count = np.full(len(face), 3)
    for normal, offset in planes:
        size = polygon.shape[1]
        height = polygon @ np.array(normal) - offset
        following = (np.arange(size) + 1) % np.maximum(count, 1)[:, None]
        used = np.arange(size) < count[:, None]
        next_height = np.take_along_axis(height, following, axis=1)
        next_point = np.take_along_axis(polygon, following[:, :, None], axis=1)
        inside = used & (height >= 0)
        crosses = used & ((height >= 0) != (next_height >= 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            cut = (polygon * next_height[:, :, None] - next_point * height[:, :, None]) / (
                next_height - height
            )[:, :, None]
        # Each corner leaves itself and then the cut behind it.
        emits = np.stack([inside, crosses], axis=2).reshape(len(polygon), -1)
        points = np.stack([polygon, cut], axis=2).reshape(len(polygon), -1, 3)
        place = np.cumsum(emits, axis=1) - 1
        count = emits.sum(axis=1)
        polygon = np.zeros((len(points), max(int(count.max(initial=0)), 3), 3))
        row, column = np.nonzero(emits)
        polygon[row, place[row, column]] = points[row, column]
    fan = np.arange(1, polygon.shape[1] - 1)
    owner, second = np.nonzero(fan[None, :] + 1 < count[:, None])
    corners = np.stack([np.zeros_like(second), second + 1, second + 2], axis=1)
    points = polygon[owner[:, None], corners]  # (T, 3, 3)
    ahead = np.maximum(-points[..., 2], near)
    x = np.clip(focal * points[..., 0] / ahead + shift_x, -GUARD_PIXELS, GUARD_PIXELS)
    y = np.clip(-focal * points[..., 1] / ahead + shift_y, -GUARD_PIXELS, GUARD_PIXELS)
    return (
        face[owner],
        np.rint(x.T * SNAP).astype(np.int64),
        np.rint(y.T * SNAP).astype(np.int64),
    )


def _scan(x: Ints, y: Ints, width: int, height: int) -> tuple[Ints, Ints, Ints]:
    """The pixels inside each snapped triangle.

    x, y (3, T). Returns the triangles that reach a row of rays (F,) and, for each pixel inside
    one, the index into these (K,) and the flat pixel (K,). Rows and the span of columns in each
    row are half open, which is what the infinitesimal move of the rays comes to.
    """
    low, high = _extent(y)
    left, right = _extent(x)
    first = np.maximum(-(-low >> SNAP_BITS), 0)
    rows = np.minimum(-(-high >> SNAP_BITS), height) - first
    seen = np.flatnonzero((rows > 0) & (right >= 0) & (left <= (width - 1) * SNAP) & (right > left))
    first, rows = first[seen], rows[seen]
    x, y = x[:, seen], y[:, seen]
    for a, b in ((0, 1), (1, 2), (0, 1)):  # corners by height
        swap = y[a] > y[b]
        x[a], x[b] = np.where(swap, x[b], x[a]), np.where(swap, x[a], x[b])
        y[a], y[b] = np.where(swap, y[b], y[a]), np.where(swap, y[a], y[b])

    owner = np.repeat(np.arange(len(seen)), rows)
    row = np.arange(len(owner)) - np.repeat(np.cumsum(rows) - rows - first, rows)
    level = row << SNAP_BITS
    (xa, xb, xc), (ya, yb, yc) = x[:, owner], y[:, owner]
    long_edge = _first_column(xa, ya, xc, yc, level)
    # Of the two short edges, the one that the row meets.
    lower = level < yb
    short_edge = _first_column(
        np.where(lower, xa, xb),
        np.where(lower, ya, yb),
        np.where(lower, xb, xc),
        np.where(lower, yb, yc),
        level,
    )
    left = np.maximum(np.minimum(long_edge, short_edge), 0)
    length = np.minimum(np.maximum(long_edge, short_edge), width) - left

    full = np.flatnonzero(length > 0)
    left, length = left[full], length[full]
    triangle = np.repeat(owner[full], length)
    begin = row[full] * width + left
    pixel = np.arange(len(triangle)) - np.repeat(np.cumsum(length) - length - begin, length)
    return seen, triangle, pixel


def _extent(values: Ints) -> tuple[Ints, Ints]:
    """Least and greatest of (3, T) over the first axis."""
    a, b, c = values
    return np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)


def _first_column(xa: Ints, ya: Ints, xb: Ints, yb: Ints, level: Ints) -> Ints:
    """The first whole column at or right of the edge a-b on each row; ya < yb."""
    rise = yb - ya
    across = (xb - xa) * (level - ya) + xa * rise
    return -(-across // (rise << SNAP_BITS))


def _ray(pixel: Ints, camera: Camera) -> Floats:
    """Rays (2, K) as x and y where z is -1, in camera space."""
    assert camera.cx is not None
    assert camera.cy is not None
    row, column = np.divmod(pixel, camera.width)
    return np.stack(
        [
            (column + (camera.pixel_offset - camera.cx)) / camera.focal,
            (row + (camera.pixel_offset - camera.cy)) / -camera.focal,
        ]
    )


def _distance(vertices: Floats, corners: Ints, hit: Ints, ray: Floats) -> tuple[Floats, Floats]:
    """Normal (F, 3) of each face, not of unit length, and distance (K,) of each hit.

    corners (F, 3) : the faces' vertices; hit (K,) : which face; ray (2, K).
    """
    a, b, c = vertices[corners.T]
    normal = np.cross(b - a, c - a)
    offset = np.einsum("ij,ij->i", normal, a)
    ahead = -vertices[:, 2][corners.T]
    x, y, z = normal.T
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        along = offset[hit] / (x[hit] * ray[0] + y[hit] * ray[1] - z[hit])
    # A face seen edge-on has no sharp distance; it lies between its corners in any case.
    low, high = np.maximum(ahead.min(axis=0), 0.0), ahead.max(axis=0)
    along = np.where(np.isfinite(along), along, high[hit])
    along = np.clip(along, low[hit], high[hit])
    return normal, along * np.sqrt(ray[0] ** 2 + ray[1] ** 2 + 1.0)


def _order(pixel: Ints, distance: Floats, pixels: int) -> tuple[Ints, Ints]:
    """Hits by pixel and front to back: their order (K,) and each one's place in its pixel (K,)."""
    # At most 50: the steps are counted in doubles, which hold no larger whole numbers exactly.
    bits = min(62 - int(pixels).bit_length(), 50)
    farthest = float(distance.max(initial=0.0)) or 1.0
    steps = (distance * ((1 << bits) - 1) / farthest).astype(np.int64)
    order = np.argsort((pixel << bits) | steps, kind="stable")
    pixel = pixel[order]
    place = np.arange(len(pixel))
    starts = np.empty(len(pixel), dtype=bool)
    starts[:1] = True
    np.not_equal(pixel[1:], pixel[:-1], out=starts[1:])
    return order, place - np.maximum.accumulate(np.where(starts, place, 0))


def _weights(surface: Surface, vertices: Floats, corners: Ints, ray: Floats) -> Floats | None:
    """Barycentric weights (K, 3) of each hit, or None where the surface has no use for them.

    corners (K, 3) : the hit face's vertices; ray (2, K).
    """
    attributes = (surface.corner_normals, surface.corner_colors, surface.corner_uvs)
    if all(values is None for values in attributes):
        return None
    a, b, c = vertices[corners.T]
    weights = np.empty((3, len(corners)))
    for row, (p, q) in zip(weights, ((b, c), (c, a), (a, b)), strict=True):
        x, y, z = np.cross(p, q).T
        row[:] = x * ray[0] + y * ray[1] - z
    # All three have the sign of the face's side; snapping can leave one a hair outside.
    weights *= np.sign(weights.sum(axis=0))
    weights = np.maximum(weights, 0.0)
    total = weights.sum(axis=0)
    return np.where(total > 0, weights / np.where(total > 0, total, 1.0), 1 / 3).T


def _normals(
    surface: Surface,
    face_normal: Floats,
    hit: Ints,
    face: Ints,
    weights: Floats | None,
    rotation: Floats,
) -> Floats:
    """Unit normal (K, 3) of each hit in camera space; face_normal (F, 3) is indexed by `hit`."""
    normal = _unit(face_normal)[hit]
    if surface.corner_normals is None or weights is None:
        return normal
    smooth = np.einsum("kc,kcd->kd", weights, surface.corner_normals[face]) @ rotation
    length = np.linalg.norm(smooth, axis=1)
    usable = np.isfinite(length) & (length > 1e-12)
    return np.where(usable[:, None], _unit(smooth), normal)


def _unit(vectors: Floats) -> Floats:
    """Vectors (N, 3) at length 1; null vectors stay."""
    length = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return vectors / np.where(length > 0, length, 1.0)[:, None]


def _colors(surface: Surface, face: Ints, weights: Floats | None) -> Floats:
    """Colour (K, 3), sRGB-encoded: corner colour x base colour x texture, in linear light."""
    materials = surface.materials or (Material(),)
    color = np.empty((len(face), 3))
    slot = (
        np.zeros(len(face), dtype=np.int64)
        if surface.face_material is None
        else surface.face_material[face]
    )
    for number, material in enumerate(materials):
        chosen = np.flatnonzero(slot == number)
        if not len(chosen):
            continue
        factors: list[Floats] = []
        if surface.corner_colors is not None and weights is not None:
            corner_colors = surface.corner_colors[face[chosen]]
            factors.append(np.einsum("kc,kcd->kd", weights[chosen], corner_colors))
        if material.texture is not None and surface.corner_uvs is not None and weights is not None:
            corner_uvs = surface.corner_uvs[face[chosen]]
            uv = np.einsum("kc,kcd->kd", weights[chosen], corner_uvs)
            factors.append(sample_texture(material.texture, uv))
        if not factors or tuple(material.base_color) != (1.0, 1.0, 1.0):
            factors.append(np.array([material.base_color], dtype=np.float64))
        if len(factors) == 1:
            color[chosen] = factors[0]
        else:
            product = np.ones((len(chosen), 3))
            for factor in factors:
                product *= srgb_to_linear(factor)
            color[chosen] = linear_to_srgb(product)
    return np.clip(np.nan_to_num(color), 0.0, 1.0)


def sample_texture(texture: NDArray[np.uint8], uv: Floats) -> Floats:
    """Bilinear samples (K, 3) in 0..1 at `uv` (K, 2); the texture repeats.

    texture (h, w, 3 or 4) with row 0 at the top; uv's origin is its bottom left corner. At a
    texel's centre the value is the texel's own.
    """
    height, width = texture.shape[:2]
    uv = np.nan_to_num(uv, posinf=0.0, neginf=0.0)
    x = (uv[:, 0] % 1.0) * width - 0.5
    y = (1.0 - uv[:, 1] % 1.0) * height - 0.5
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right_share, lower_share = (x - left)[:, None], (y - top)[:, None]
    columns = (left % width, (left + 1) % width)
    rows = (top % height, (top + 1) % height)
    upper, lower = (
        texture[row, columns[0], :3] * (1 - right_share)
        + texture[row, columns[1], :3] * right_share
        for row in rows
    )
    return (upper * (1 - lower_share) + lower * lower_share) / 255.0
