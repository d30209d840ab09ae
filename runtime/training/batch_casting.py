"""`cast` for many objects and views at once, in torch: makes training data on the training device.

This is the same A-buffer as `xray_addon.casting`, with the same rules and integers, so the hits are
the same. All views of a batch go through each step together. Objects must be in front of the
camera, as in the canonical frame; there is no clipping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from xray_addon.casting.scene import GUARD_PIXELS, SNAP, SNAP_BITS
from xray_addon.surface import Material, Surface


@dataclass(frozen=True, eq=False)
class Layers:
    """X-Rays of B views, dense: depth (B, L, S, S), 0 for no hit; normal and color
    (B, L, S, S, 3), as in `XRay`."""

    depth: Tensor
    normal: Tensor
    color: Tensor


class MeshBank:
    """Surfaces on a device, concatenated. Textures repeat and are sampled linearly."""

    def __init__(self, surfaces: Sequence[Surface], device: torch.device | str = "cpu") -> None:
        def joined(arrays: list[np.ndarray], dtype: torch.dtype) -> Tensor:
            return torch.from_numpy(np.concatenate(arrays)).to(device, dtype)

        def starts(counts: list[int]) -> Tensor:
            return torch.tensor([0, *np.cumsum(counts)], device=device)

        self.device = torch.device(device)
        self.vertex_start = starts([len(s.vertices) for s in surfaces])
        self.face_start = starts([len(s.faces) for s in surfaces])
        self.vertices = joined([s.vertices for s in surfaces], torch.float64)  # (V, 3)
        self.faces = joined([s.faces for s in surfaces], torch.int64)  # (F, 3) within its surface
        self.normals = joined([_corner_normals(s) for s in surfaces], torch.float32)  # (F, 3, 3)
        self.colors = joined(
            [_corners(s.corner_colors, s, 1.0, 3) for s in surfaces], torch.float32
        )
        self.uvs = joined([_corners(s.corner_uvs, s, 0.0, 2) for s in surfaces], torch.float32)
        kinds = [list(s.materials) or [Material()] for s in surfaces]
        first = np.cumsum([0, *map(len, kinds)])
        self.material = joined(
            [
                np.zeros(len(s.faces), np.int64)
                + start
                + (0 if s.face_material is None else s.face_material)
                for s, start in zip(surfaces, first[:-1], strict=True)
            ],
            torch.int64,
        )
        materials = [material for some in kinds for material in some]
        white = np.full((1, 1, 3), 255, np.uint8)
        textures = [white if m.texture is None else m.texture[..., :3] for m in materials]
        self.base = torch.tensor(
            np.array([m.base_color for m in materials]), dtype=torch.float32
        ).to(device)
        self.texture_size = torch.tensor([t.shape[:2] for t in textures], device=device)  # (K, 2)
        self.texture_start = starts([t.shape[0] * t.shape[1] for t in textures])
        self.texels = joined([t.reshape(-1, 3) for t in textures], torch.uint8)

    def __len__(self) -> int:
        return len(self.face_start) - 1


def cast_batch(
    bank: MeshBank,
    objects: Tensor,
    object_to_camera: Tensor,
    *,
    fov_x: Tensor,
    size: int,
    layers: int,
) -> Layers:
    """X-Rays (B, layers, size, size) of one object each.

    objects : (B,) indices into the bank. object_to_camera : (B, 4, 4) float64, a similarity
    (rotation, scale and translation) into the camera's axes. fov_x : (B,) of the cameras, radians.

    Raises ValueError if an object reaches behind its camera or out of the guard band.
    """
    focals = 0.5 * size / torch.tan(0.5 * fov_x.double())
    shift = size / 2 - 0.5
    # The vertices and faces of all views, concatenated.
    view, vertex = _expanded(bank.vertex_start, objects)
    matrix = object_to_camera[view]
    seen = (matrix[:, :3, :3] @ bank.vertices[vertex][:, :, None])[:, :, 0] + matrix[:, :3, 3]
    ahead, focal = -seen[:, 2], focals[view]
    x = focal * seen[:, 0] / ahead + shift
    y = -focal * seen[:, 1] / ahead + shift
    if not bool(((ahead > 0) & (x.abs() < GUARD_PIXELS) & (y.abs() < GUARD_PIXELS)).all()):
        raise ValueError("an object reaches behind its camera")
    snapped = torch.stack([x, y]).mul(SNAP).round().long()
    counts = bank.vertex_start.diff()[objects]
    first_vertex = counts.cumsum(0) - counts
    owner, face = _expanded(bank.face_start, objects)  # (T,)
    corners = bank.faces[face] + first_vertex[owner][:, None]  # (T, 3)

    cell, triangle = _cells(snapped[:, corners], size)
    row, column, focal = cell // size, cell % size, focals[owner[triangle]]
    ray = torch.stack([(column - shift) / focal, (shift - row) / focal], dim=1).double()
    a, b, c = (seen[corners[:, i]] for i in range(3))
    normal = torch.linalg.cross(b - a, c - a)
    offset = (normal * a).sum(dim=1)
    depth = -torch.stack([a[:, 2], b[:, 2], c[:, 2]])
    towards = normal[triangle]
    along = offset[triangle] / (
        towards[:, 0] * ray[:, 0] + towards[:, 1] * ray[:, 1] - towards[:, 2]
    )
    farthest = depth.amax(dim=0)[triangle]
    along = torch.where(along.isfinite(), along, farthest)
    along = torch.minimum(torch.maximum(along, depth.amin(dim=0)[triangle]), farthest)
    length = (ray.square().sum(dim=1) + 1).sqrt()

    pixel = owner[triangle] * size * size + cell
    kept, place = _nearest(pixel, along * length, layers)
    triangle, pixel, ray = triangle[kept], pixel[kept], ray[kept]
    corner = [seen[corners[triangle, i]] for i in range(3)]
    weights = _weights(corner, ray)
    flat = functional.normalize(normal[triangle], dim=1)
    turn = _normal_matrices(object_to_camera)[owner[triangle]]
    turned = bank.normals[face[triangle]].double() @ turn.mT  # (T, corner, 3)
    smooth = (weights[:, :, None] * functional.normalize(turned, dim=2)).sum(dim=1)
    norm = smooth.norm(dim=1, keepdim=True)
    smooth = torch.where(norm > 1e-12, smooth / norm.clamp(min=1e-12), flat)

    views, area = len(objects), size * size
    index = (pixel // area * layers + place) * area + pixel % area

    def dense(values: Tensor) -> Tensor:
        out = torch.zeros(views * layers * area, *values.shape[1:], device=bank.device)
        out[index] = values.float()
        return out.view(views, layers, size, size, *values.shape[1:])

    color = _colors(bank, face[triangle], weights.float())
    return Layers(dense((along * length)[kept]), dense(smooth), dense(color))


def _normal_matrices(matrices: Tensor) -> Tensor:
    """The (B, 3, 3) that turn normals under affine `matrices` (B, 4, 4): the inverse transposes, up
    to a factor."""
    x, y, z = matrices[:, :3, :3].unbind(dim=1)
    rows = [torch.linalg.cross(y, z), torch.linalg.cross(z, x), torch.linalg.cross(x, y)]
    cofactors = torch.stack(rows, dim=1)
    return cofactors / cofactors.flatten(1).norm(dim=1)[:, None, None]


def _expanded(starts: Tensor, objects: Tensor) -> tuple[Tensor, Tensor]:
    """The view (N,) and index (N,) of the parts starts[o] to starts[o + 1] of all `objects`."""
    counts = starts.diff()[objects]
    view = torch.repeat_interleave(torch.arange(len(objects), device=starts.device), counts)
    first = starts[:-1][objects] - (counts.cumsum(0) - counts)
    return view, torch.arange(len(view), device=starts.device) + first[view]


def _cells(corners: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Cells row * size + column covered by snapped triangles (2, T, 3), and each cell's triangle.

    Rows, and the span of columns in each row, are half open; see `array_kernel`.
    """
    y, order = corners[1].sort(dim=1)
    x = corners[0].gather(1, order)
    first = _ceil(y[:, 0]).clamp(min=0)
    rows = (_ceil(y[:, 2]).clamp(max=size) - first).clamp(min=0)
    owner = torch.repeat_interleave(torch.arange(len(x), device=x.device), rows)
    row = torch.arange(len(owner), device=x.device) - (rows.cumsum(0) - rows - first)[owner]
    level = row << SNAP_BITS
    (xa, xb, xc), (ya, yb, yc) = x[owner].T, y[owner].T
    long_edge = _first_column(xa, ya, xc, yc, level)
    lower = level < yb
    short_edge = _first_column(
        torch.where(lower, xa, xb),
        torch.where(lower, ya, yb),
        torch.where(lower, xb, xc),
        torch.where(lower, yb, yc),
        level,
    )
    left = torch.minimum(long_edge, short_edge).clamp(min=0)
    spans = (torch.maximum(long_edge, short_edge).clamp(max=size) - left).clamp(min=0)
    span = torch.repeat_interleave(torch.arange(len(spans), device=x.device), spans)
    column = torch.arange(len(span), device=x.device) - (spans.cumsum(0) - spans - left)[span]
    return row[span] * size + column, owner[span]


def _ceil(values: Tensor) -> Tensor:
    return -((-values) >> SNAP_BITS)


def _first_column(xa: Tensor, ya: Tensor, xb: Tensor, yb: Tensor, level: Tensor) -> Tensor:
    """The first whole column at or right of the edge a-b on each row; ya < yb."""
    rise = yb - ya
    across = (xb - xa) * (level - ya) + xa * rise
    return -torch.div(-across, rise << SNAP_BITS, rounding_mode="floor")


def _nearest(pixel: Tensor, distance: Tensor, layers: int) -> tuple[Tensor, Tensor]:
    """Which hits (N,) are among the `layers` nearest of their pixel, and their ranks."""
    order = distance.argsort(stable=True)
    order = order[pixel[order].argsort(stable=True)]
    where = pixel[order]
    place = torch.arange(len(where), device=where.device)
    starts = torch.ones_like(where, dtype=torch.bool)
    starts[1:] = where[1:] != where[:-1]
    place = place - torch.where(starts, place, 0).cummax(dim=0).values
    kept = place < layers
    return order[kept], place[kept]


def _weights(corner: list[Tensor], ray: Tensor) -> Tensor:
    """Barycentric weights (K, 3) of the points at which rays (K, 2) pass through triangles."""
    a, b, c = corner
    towards = torch.cat([ray, -torch.ones_like(ray[:, :1])], dim=1)
    share = torch.stack(
        [(torch.linalg.cross(p, q) * towards).sum(dim=1) for p, q in ((b, c), (c, a), (a, b))],
        dim=1,
    )
    share = (share * share.sum(dim=1, keepdim=True).sign()).clamp(min=0)
    total = share.sum(dim=1, keepdim=True)
    return torch.where(total > 0, share / total.clamp(min=1e-300), 1 / 3)


def _colors(bank: MeshBank, face: Tensor, weights: Tensor) -> Tensor:
    """Colours (K, 3): corner colour x base colour x texture, in linear light."""
    material = bank.material[face]
    uv = (weights[:, :, None] * bank.uvs[face]).sum(dim=1)
    color = (weights[:, :, None] * bank.colors[face]).sum(dim=1)
    product = to_linear(color) * to_linear(bank.base[material])
    product = product * to_linear(_texels(bank, material, uv))
    return to_srgb(product).clamp(0, 1)


def _texels(bank: MeshBank, material: Tensor, uv: Tensor) -> Tensor:
    """Texture samples (K, 3) at `uv` (K, 2): linear interpolation, repeating."""
    height, width = bank.texture_size[material].T
    start = bank.texture_start[material]
    uv = uv - uv.floor()
    x, y = uv[:, 0] * width - 0.5, (1 - uv[:, 1]) * height - 0.5
    left, top = x.floor(), y.floor()

    def texel(row: Tensor, column: Tensor) -> Tensor:
        place = start + row.long() % height * width + column.long() % width
        return bank.texels[place].float()

    right, lower = (x - left)[:, None], (y - top)[:, None]
    above = torch.lerp(texel(top, left), texel(top, left + 1), right)
    below = torch.lerp(texel(top + 1, left), texel(top + 1, left + 1), right)
    return torch.lerp(above, below, lower) / 255


def to_linear(color: Tensor) -> Tensor:
    """As `xray_addon.color.srgb_to_linear`."""
    return torch.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def to_srgb(color: Tensor) -> Tensor:
    """As `xray_addon.color.linear_to_srgb`."""
    color = color.clamp(min=0)
    return torch.where(color <= 0.0031308, color * 12.92, 1.055 * color ** (1 / 2.4) - 0.055)


def shade_batch(
    layers: Layers, up: Tensor, sky: Tensor, ground: Tensor, suns: Tensor, *, fov_x: Tensor
) -> Tensor:
    """The first layers lit as `xray_addon.pictures.shading.shade` does: (B, 4, S, S) RGBA 0..1.

    up : (B, 3) the sky's direction in camera space. sky, ground : (B,) radiance. suns : (B, 3)
    directions times strengths. fov_x : (B,) of the cameras, radians.
    """
    depth, normal, color = layers.depth[:, 0], layers.normal[:, 0], layers.color[:, 0]
    size = depth.shape[-1]
    focal = 0.5 * size / torch.tan(0.5 * fov_x)
    place = (torch.arange(size, device=depth.device) + 0.5 - size / 2) / focal[:, None]
    x, y = place[:, None, :].expand_as(depth), -place[:, :, None].expand_as(depth)
    ray = torch.stack([x, y, -torch.ones_like(x)], dim=-1)
    away = (normal * ray).sum(dim=-1, keepdim=True) > 0
    normal = torch.where(away, -normal, normal)
    share = 0.5 + 0.5 * (normal * up[:, None, None]).sum(dim=-1)
    light = ground[:, None, None] + (sky - ground)[:, None, None] * share
    light = light + (normal * suns[:, None, None]).sum(dim=-1).clamp(min=0)
    hit = depth > 0
    lit = to_srgb(to_linear(color) * light[..., None]).clamp(max=1) * hit[..., None]
    return torch.cat([lit, hit[..., None].float()], dim=-1).movedim(-1, 1)


def _corners(values: np.ndarray | None, surface: Surface, default: float, width: int) -> np.ndarray:
    return np.full((len(surface.faces), 3, width), default) if values is None else values


def _corner_normals(surface: Surface) -> np.ndarray:
    """The corner normals; zeros, which mean the face's normal, if the surface has none."""
    return _corners(surface.corner_normals, surface, 0.0, 3)
