"""Makes one smooth, closed mesh from predicted layers.

A ray enters the object at the first layer and leaves it for the last time at the last one. The body
is all that lies between. Gaps between layers are filled: the network is unsure of them, and kept
gaps became tunnels and torn walls without bringing meshes nearer to the truth (docs/quality.md). A
hollow that the image shows, such as a cup's, stays, because the first layer follows it.

The body is a scalar field, positive inside. Its value is about the distance to the nearest of three
things: the first layer, the last one and the object's outline. Rims, where a surface meets the
outline, are rounded according to the slope there. The mesh is the field's zero level (marching
cubes), remeshed to even triangles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure
from torch.nn import functional

from xray_addon.camera import Camera

from ..meshes.remeshing import remesh
from ..meshes.smoothing import taubin
from .decoding import Layers, extended
from .piecewise_planar import piecewise_planar

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

CELL = 0.0107  # of the field's grid, frame units: two pixels of 256
FACES = 20_000
# Layers come in pairs, one where a ray enters and one where it leaves. The body reaches to the last
# pair whose likelihood is above LIKELY; the first pair always counts.
LIKELY = 0.3
SHARE_BLUR = 3.0  # px of 256, for the likelihoods
# Minimum thickness of the body, in cells, so that the grid cannot miss it. The outline counts as
# thin where it is narrower than THIN, in px of 256.
LEAST_THICKNESS = 2.0
THIN = 5
STEEP = 0.25  # minimum of the cosine that converts a distance along a ray to one to the surface
# The solid is extended by GROWTH (frame units) towards the camera and away from it, but at most by
# GROWTH_SHARE of its thickness, because predictions are too thin. Chosen on every third object of
# the val split.
GROWTH = 0.006
GROWTH_SHARE = 0.4
BLUR = 1.0  # cells, for the field
# Minimum and maximum radius of rims, and the width of the band along the outline whose slope
# determines it; frame units.
FILLET = 0.012
MOST_ROUND = 0.03
RIM = 0.04
# Loose parts smaller than this share of the whole are removed.
CRUMB = 0.01
# The base is cut flat. Of the lowest BASE_HEIGHT of the solid, it is the first slice with at least
# BASE_SHARE of the area of the largest slice there.
BASE_HEIGHT = 0.1
BASE_SHARE = 0.5
SNAP = 0.4  # vertices less than this many cells above the ground are moved onto it
SMOOTHING = 6  # rounds


def solid_mesh(
    layers: Layers, camera: Camera, foot: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices (N, 3), in world space, and faces (F, 3) of the closed mesh; empty if the layers
    have no hits.

    camera : of the layers, H x W. foot : share of the solid's height up to which its underside is
    extended down to the ground.
    """
    if not (layers.outline & (layers.depth[:2] > 0).all(axis=0)).any():
        return _nothing()
    maps = _maps(layers, camera)
    low, shape = _grid(maps, camera)
    field, hull = _field(maps, camera, low, shape)
    base = _base(field)
    if base is None:
        return _nothing()
    field = _footed(field, hull, base, foot)
    # The ground may lie between two slices of the grid; take the lower one.
    field = np.minimum(field, CELL * (np.arange(shape[2], dtype=np.float32) - base))
    vertices, faces, _, _ = measure.marching_cubes(field, 0.0, gradient_direction="ascent")
    vertices = vertices.astype(np.float64) * CELL
    faces = faces.astype(np.int64)
    length = math.sqrt(4 * _area(vertices, faces) / (math.sqrt(3) * FACES))
    vertices, faces = remesh(vertices, faces, max(length, CELL))
    vertices = taubin(vertices, faces, SMOOTHING)
    ground = base * CELL
    vertices[vertices[:, 2] < ground + SNAP * CELL, 2] = ground
    return vertices + low, faces


def _nothing() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return np.zeros((0, 3)), np.zeros((0, 3), np.int64)


@dataclass(frozen=True, eq=False)
class _Maps:
    """Maps (H, W). enter, leave : depths of the body's front and back. inside : distance to the
    outline, positive inside, frame units. rounding : radius of the rim. thin : whether the outline
    is thin."""

    enter: Floats
    leave: Floats
    inside: Floats
    rounding: Floats
    thin: Bools


def _signed_distance(mask: Bools, unit: float) -> Floats:
    """Distance (H, W) to the border of `mask`, positive inside. unit : size of a pixel."""
    if not mask.any():
        return np.full(mask.shape, -1e3, np.float32)
    within = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    beyond = ndimage.distance_transform_edt(~mask)
    return ((within - beyond - np.where(mask, 0.5, -0.5)) * unit).astype(np.float32)


def pairs_behind(layers: Layers) -> Bools:
    """Which pairs behind the first one the body reaches to: (L / 2 - 1, H, W)."""
    share = ndimage.gaussian_filter(layers.share[2::2], (0, SHARE_BLUR, SHARE_BLUR))
    return np.logical_and.accumulate((share > LIKELY) & (layers.depth[3::2] > 0), axis=0)


def body_ends(layers: Layers) -> tuple[Floats, Floats]:
    """The depths (H, W) at which each ray enters the body and leaves it; 0 where unknown."""
    leave = layers.depth[1].copy()
    for there, depth in zip(pairs_behind(layers), layers.depth[3::2], strict=True):
        leave[there] = depth[there]
    return layers.depth[0], leave


def _maps(layers: Layers, camera: Camera) -> _Maps:
    unit = camera.distance / camera.focal
    outline = layers.outline
    enter, leave = body_ends(layers)
    enter, leave = extended(enter, enter > 0), extended(leave, leave > 0)
    leave = piecewise_planar(leave, outline, camera)
    leave = np.maximum(leave, enter + LEAST_THICKNESS * CELL)
    thin = _thin(outline)
    inside = np.maximum(_signed_distance(outline, unit), _signed_distance(thin, unit) + CELL)
    return _Maps(enter, leave, inside, _rounding(enter, leave, inside, camera), thin)


def _thin(outline: Bools) -> Bools:
    """The parts (H, W) of the outline that are too narrow for the grid."""
    return outline & ~ndimage.binary_opening(outline, np.ones((THIN, THIN), bool))


def _slope_cosine(depth: Floats, camera: Camera) -> Floats:
    """Cosine (H, W) between the rays and the normals of the surface at `depth`."""
    smooth = ndimage.gaussian_filter(depth, 2.0)
    down, right = np.gradient(smooth)
    slope = (down**2 + right**2) * (camera.focal / smooth) ** 2
    return (1 / np.sqrt(1 + slope)).astype(np.float32)


def _rounding(enter: Floats, leave: Floats, inside: Floats, camera: Camera) -> Floats:
    """Radius (H, W) of the rim: small where the front is flat up to the outline."""
    cosine = np.minimum(_slope_cosine(enter, camera), 1)
    band = ((inside > 0) & (inside < RIM)).astype(np.float32)
    blur = RIM * camera.focal / camera.distance
    weight = ndimage.gaussian_filter(band, blur)
    flat = ndimage.gaussian_filter(cosine * band, blur) / np.maximum(weight, 1e-6)
    half = ndimage.gaussian_filter((leave - enter) * band, blur) / np.maximum(weight, 1e-6) / 2
    round_ = np.clip((0.85 - flat) / 0.35, 0, 1)
    return np.maximum(FILLET, round_ * np.minimum(half, MOST_ROUND)).astype(np.float32)


def _grid(maps: _Maps, camera: Camera) -> tuple[NDArray[np.float64], tuple[int, int, int]]:
    """The lowest corner (3,) and the shape of a grid around the solid, with cells of `CELL`."""
    row, column = np.nonzero(maps.inside > -2 * CELL)
    ray = camera.ray_directions(row, column) @ camera.camera_to_world[:3, :3].T
    ends = (maps.enter[row, column, None], maps.leave[row, column, None])
    points = np.concatenate([camera.position + ray * depth for depth in ends])
    low, high = points.min(axis=0) - 3 * CELL, points.max(axis=0) + 3 * CELL
    shape = np.ceil((high - low) / CELL).astype(int) + 1
    return low, (int(shape[0]), int(shape[1]), int(shape[2]))


def _field(
    maps: _Maps, camera: Camera, low: NDArray[np.float64], shape: tuple[int, int, int]
) -> tuple[Floats, Floats]:
    """Two fields (X, Y, Z) at the grid's nodes: the solid's, blurred except at thin parts and
    without crumbs, and that of all that lies behind its front and inside its outline."""
    axes = [
        torch.arange(count, dtype=torch.float32) * CELL + float(start)
        for count, start in zip(shape, low, strict=True)
    ]
    matrix = torch.from_numpy(camera.world_to_camera).float()
    # Each camera coordinate is a sum of one term per axis, so no array of points is needed.
    x, y, z = (
        matrix[i, 0] * axes[0][:, None, None]
        + matrix[i, 1] * axes[1][:, None]
        + matrix[i, 2] * axes[2]
        + matrix[i, 3]
        for i in range(3)
    )
    half = math.tan(camera.fov_x / 2)
    grid = torch.stack([x / (-z * half), -y / (-z * half)], dim=-1).view(1, 1, -1, 2)
    along = (x * x + y * y + z * z).sqrt().view(-1)
    cosines = [_slope_cosine(depth, camera).clip(STEEP) for depth in (maps.enter, maps.leave)]
    planes = [maps.enter, maps.leave, maps.inside, maps.rounding, maps.thin, *cosines]
    seen = functional.grid_sample(
        torch.from_numpy(np.stack(planes).astype(np.float32))[None],
        grid,
        padding_mode="border",
        align_corners=False,
    )[0, :, 0]
    enter, leave, inside, radius, thin, enter_cosine, leave_cosine = seen
    between = torch.minimum((along - enter) * enter_cosine, (leave - along) * leave_cosine)
    growth = (GROWTH_SHARE * (leave - enter)).clamp(max=GROWTH)
    value = _rounded(between + growth, inside, radius)
    # Clamp: large values far from the surface would otherwise be blurred into those near it.
    field = value.clamp(-3 * CELL, 3 * CELL).view(shape).numpy()
    calm = ndimage.gaussian_filter(field, BLUR, truncate=2.0)
    keep = thin.view(shape).numpy() > 0.25
    hull = _rounded((along - enter) * enter_cosine, inside, radius).view(shape).numpy()
    return _without_crumbs(np.where(keep, np.maximum(calm, field), calm)), hull


def _rounded(a: torch.Tensor, b: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """The minimum of two distances; the edge where they are equal is rounded with `radius`."""
    short = ((radius - a).clamp(min=0) ** 2 + (radius - b).clamp(min=0) ** 2).sqrt()
    return torch.where(torch.minimum(a, b) < radius, radius - short, torch.minimum(a, b))


def _without_crumbs(field: Floats) -> Floats:
    """`field` without loose parts smaller than `CRUMB` of the whole."""
    label, count = ndimage.label(field > 0)
    if count < 2:
        return field
    size = np.bincount(label.ravel())
    small = np.append(False, size[1:] < CRUMB * size[1:].sum())
    crumbs = small[label]
    crumbs |= ndimage.binary_dilation(crumbs, iterations=2) & (label == 0)
    return np.where(crumbs, np.minimum(field, -CELL), field)


def _base(field: Floats) -> int | None:
    """The slice of the grid that the solid stands on: the lowest that is about as wide as those
    above it, so that a round underside loses little. None if there is no solid."""
    area = (field > 0).sum(axis=(0, 1))
    filled = np.flatnonzero(area)
    if not len(filled):
        return None
    lowest, count = int(filled[0]), max(1, round(BASE_HEIGHT * len(filled)))
    near = area[lowest : lowest + count + 1]
    return lowest + int(np.argmax(near >= BASE_SHARE * near.max()))


def _footed(field: Floats, hull: Floats, base: int, foot: float) -> Floats:
    """`field` (X, Y, Z), the underside extended down to the slice `base` where it is not
    higher than the share `foot` of the solid.

    hull : the field of the space that the image allows the solid to fill.
    """
    filled = np.flatnonzero((field > 0).any(axis=(0, 1)))
    top = base + round(foot * (int(filled[-1]) - base))
    field = field.copy()
    for level in range(top - 1, base - 1, -1):
        below = np.minimum(field[:, :, level + 1], hull[:, :, level])
        np.maximum(field[:, :, level], below, out=field[:, :, level])
    return field


def _area(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> float:
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)
