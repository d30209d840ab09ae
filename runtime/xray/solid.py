"""From predicted layers to the layers of one calm solid.

Each pair of layers is where a ray enters and leaves. A network is unsure of both, most of all of
how many pairs there are: read one by one, its hidden layers come out as loose, jagged sheets. So
the pairs are laid into a volume, each with the likelihood that it is there; the volume is blurred,
and the solid is where enough of it is left. Its borders along each ray are the layers: they enter
and leave in turn, slivers are gone, gaps as narrow as the blur are closed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from xray_addon.camera import Camera
from xray_addon.surface import Surface
from xray_addon.xray import XRay

from ..meshes.smoothing import neighbour_mean, vertex_normals

CELL = 0.0125  # frame units along a ray
BLUR = 4.0  # px across the rays, of an image of 256
BLUR_ALONG = 1.5  # cells
# What is left of a likelihood after the blur where the solid ends. Less than half, by which the
# solid grows a little (0.01 where it is flat): networks see too little of what is thin or hidden,
# and the scans come out nearer to the truth than with a half.
THRESHOLD = 0.3
# Every ray through the outline holds something: its fullest cell is raised to this.
FLOOR = 0.45
Floats = NDArray[np.float32]


def solid_layers(
    depth: Floats,
    color: Floats,
    share: Floats,
    outline: NDArray[np.bool_],
    camera: Camera,
) -> XRay:
    """The X-Ray (L, H, W) of the solid that the layers mean.

    depth : (L, H, W), 0 where unknown; a pixel's do not decrease. color : (L, H, W, 3). share :
    (L / 2, H, W) the likelihood 0..1 of each pair. outline : (H, W) the pixels that the object
    covers. camera : H x W.
    """
    layers, height, width = shape = depth.shape[0], depth.shape[1], depth.shape[2]
    share = np.where((depth[0::2] > 0) & (depth[1::2] > 0) & outline, share, 0).astype(np.float32)
    likely = np.repeat(share > 0.02, 2, axis=0)
    if not likely.any():
        empty = np.zeros(0, dtype=np.int64)
        none = np.zeros((0, 3), dtype=np.float32)
        return XRay.from_hits(shape, empty, none[:, 0], none, none)
    volume, near = _volume(depth, share, likely, outline)
    inside = volume > THRESHOLD
    row, column, cell = np.nonzero(inside[..., 1:] != inside[..., :-1])
    before, after = volume[row, column, cell], volume[row, column, cell + 1]
    place = (THRESHOLD - before) / (after - before)
    hit_depth = near + CELL * (cell + 0.5 + place)
    normal = _normals(volume, row, column, cell, place, hit_depth, camera)

    pixel = row * width + column
    first = np.flatnonzero(np.diff(pixel, prepend=-1))
    layer = np.arange(len(pixel)) - np.repeat(first, np.diff(np.append(first, len(pixel))))
    # A border's colour is that of the nearest likely layer, of its own kind if there is one.
    off = np.abs(depth[:, row, column] - hit_depth)
    off += np.where(np.arange(layers)[:, None] % 2 == layer % 2, 0.0, 10.0)
    off += np.where(likely[:, row, column], 0.0, 100.0)
    hit_color = color[off.argmin(axis=0), row, column]

    kept = layer < layers
    index = (layer * height * width + pixel)[kept]
    order = np.argsort(index)
    depths, normals, colors = (
        values[kept][order].astype(np.float32) for values in (hit_depth, normal, hit_color)
    )
    return XRay.from_hits(shape, index[order], depths, normals, colors, int((~kept).sum()))


def _volume(
    depth: Floats, share: Floats, likely: NDArray[np.bool_], outline: NDArray[np.bool_]
) -> tuple[Floats, float]:
    """The blurred likelihood (H, W, N) of the cells along each ray, and the depth of the first."""
    margin = 6 * CELL
    near = float(depth[likely].min()) - margin
    count = int((float(depth[likely].max()) + margin - near) / CELL) + 1
    start = near + CELL * np.arange(count, dtype=np.float32)
    volume = np.zeros((*outline.shape, count), dtype=np.float32)
    rows, columns = (np.flatnonzero(outline.any(axis=axis)) for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    held = volume[box]
    for pair, weight in enumerate(share):
        enter, leave = (depth[2 * pair + end][box][..., None] for end in (0, 1))
        length = np.minimum(leave, start + CELL) - np.maximum(enter, start)
        held += np.clip(length / CELL, 0, 1) * weight[box][..., None]
    np.minimum(held, 1, out=held)
    held[:] = ndimage.gaussian_filter(held, (BLUR, BLUR, BLUR_ALONG), mode="constant", truncate=2.5)
    held *= np.maximum(1, FLOOR / np.maximum(held.max(axis=2, keepdims=True), 1e-6))
    held *= outline[box][..., None]
    return volume, near


def _normals(
    volume: Floats,
    row: NDArray[np.intp],
    column: NDArray[np.intp],
    cell: NDArray[np.intp],
    place: Floats,
    depth: NDArray[np.floating],
    camera: Camera,
) -> NDArray[np.float64]:
    """Unit normals (K, 3), in camera space, of the borders `place` (0..1) behind a cell's middle:
    against the slope of the likelihood."""
    height, width, count = volume.shape

    def at(down: int, right: int, along: int) -> Floats:
        rows, columns = np.clip(row + down, 0, height - 1), np.clip(column + right, 0, width - 1)
        one, two = (np.clip(cell + along + k, 0, count - 1) for k in (0, 1))
        return volume[rows, columns, one] * (1 - place) + volume[rows, columns, two] * place

    slope = np.stack(
        [
            (at(1, 0, 0) - at(-1, 0, 0)) / 2,
            (at(0, 1, 0) - at(0, -1, 0)) / 2,
            (at(0, 0, 1) - at(0, 0, -1)) / (2 * CELL),
        ],
        axis=-1,
    )
    # A point is its depth times its ray; how it moves with row, column and depth.
    down = camera.ray_directions(row + 0.5, column) - camera.ray_directions(row - 0.5, column)
    right = camera.ray_directions(row, column + 0.5) - camera.ray_directions(row, column - 0.5)
    moves = np.stack(
        [depth[:, None] * down, depth[:, None] * right, camera.ray_directions(row, column)], axis=1
    )
    normal = -np.linalg.solve(moves, slope[..., None])[..., 0]
    return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)


def smooth_surface(surface: Surface, rounds: int) -> Surface:
    """The mesh with the steps of its pixels smoothed away, and smooth normals.

    Taubin, "A signal processing approach to fair surface design" (SIGGRAPH 1995): each round
    shrinks the mesh a little and grows it again, so that its volume stays.
    """
    vertices, faces = surface.vertices.astype(np.float64), surface.faces
    mean = neighbour_mean(faces, len(vertices))
    for _ in range(rounds):
        for step in (0.5, -0.53):
            vertices = vertices + step * (mean @ vertices - vertices)
    normal = vertex_normals(vertices, faces)[faces].astype(np.float32)
    return replace(surface, vertices=vertices, corner_normals=normal)
