"""The field of a scene code: density and colour at points, and views of it.

The axes are the published ones: z up, the image's viewer at +x, the image's right is +y.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from xray_addon.systems.triposr import FRAME

from .config import TripoSRConfig
from .model import FieldPerceptron

DISTANCE = FRAME.distance
FOV_Y = FRAME.fov_x  # of a square image
_SHRINK = 1 - 1e-3  # rays are sampled slightly inside the box
_SHORTEST = 0.01  # rays with a shorter path through the box see nothing


def query(planes: Tensor, decoder: FieldPerceptron, points: Tensor, radius: float) -> Tensor:
    """Raw density and raw colour (N, 4) at points (N, 3) within +-radius.

    planes : (3, c, H, W) one scene code; the planes are (x, y), (x, z) and (y, z).
    """
    scaled = points / radius
    where = torch.stack([scaled[:, [0, 1]], scaled[:, [0, 2]], scaled[:, [1, 2]]])[:, None]
    features = functional.grid_sample(
        planes, where, mode="bilinear", padding_mode="zeros", align_corners=False
    )  # (3, c, 1, N)
    return decoder(features[:, :, 0].permute(2, 0, 1).flatten(1))


def density(raw: Tensor, bias: float) -> Tensor:
    """Density from raw density."""
    return torch.exp(raw + bias)


def orbit_cameras(count: int, *, elevation: float = 0.0, distance: float = DISTANCE) -> Tensor:
    """(count, 4, 4) camera to world, evenly around the z axis starting at the viewer.

    elevation : radians. OpenGL's camera axes: +x right, +y up, looking along -z.
    """
    azimuth = torch.linspace(0, 2 * math.pi, count + 1, dtype=torch.float64)[:count]
    level = math.cos(elevation)
    position = distance * torch.stack(
        [
            level * azimuth.cos(),
            level * azimuth.sin(),
            torch.full_like(azimuth, math.sin(elevation)),
        ],
        dim=1,
    )
    backward = functional.normalize(position, dim=1)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand(count, 3)
    right = functional.normalize(torch.linalg.cross(up, backward, dim=1), dim=1)
    up = torch.linalg.cross(backward, right, dim=1)
    matrix = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    matrix[:, :3] = torch.stack([right, up, backward, position], dim=2)
    return matrix.float()


def camera_rays(camera_to_world: Tensor, size: int, fov_y: float = FOV_Y) -> tuple[Tensor, Tensor]:
    """Origins and unit directions (V, size, size, 3) through the pixels' centres."""
    focal = 0.5 * size / math.tan(0.5 * fov_y)
    offset = (torch.arange(size, device=camera_to_world.device) + 0.5 - size / 2) / focal
    rows, columns = torch.meshgrid(-offset, offset, indexing="ij")
    local = torch.stack([columns, rows, -torch.ones_like(rows)], dim=-1)
    turned = torch.einsum("vij,hwj->vhwi", camera_to_world[:, :3, :3], local)
    origins = camera_to_world[:, None, None, :3, 3].expand_as(turned)
    return origins, functional.normalize(turned, dim=-1)


def render_rays(
    evaluate: Callable[[Tensor], Tensor],
    origins: Tensor,
    directions: Tensor,
    config: TripoSRConfig,
) -> tuple[Tensor, Tensor]:
    """Colours on white (N, 3) and opacity (N,) along rays (N, 3).

    evaluate : maps points (M, 3) to raw density and colour (M, 4).
    """
    near, far = _box_span(origins, directions, config.radius * _SHRINK)
    hit = far - near > _SHORTEST
    color = torch.ones_like(origins)
    opacity = torch.zeros_like(near)
    if not hit.any():
        return color, opacity
    near, far, count = near[hit], far[hit], config.ray_samples
    middles = (torch.arange(count, device=near.device) + 0.5) / count
    along = near[:, None] * (1 - middles) + far[:, None] * middles
    points = origins[hit][:, None] + along[..., None] * directions[hit][:, None]
    raw = evaluate(points.reshape(-1, 3)).unflatten(0, points.shape[:2])
    # As published, a ray's length within the box is always taken as 1.
    alpha = 1 - torch.exp(-density(raw[..., 0], config.density_bias) / count)
    passed = torch.cumprod(1 - alpha + 1e-10, dim=1)
    weight = alpha * torch.cat([torch.ones_like(passed[:, :1]), passed[:, :-1]], dim=1)
    total = weight.sum(dim=1)
    seen = (weight[..., None] * torch.sigmoid(raw[..., 1:])).sum(dim=1)
    color = color.masked_scatter(hit[:, None], seen + (1 - total[:, None]))
    return color, opacity.masked_scatter(hit, total)


def _box_span(origins: Tensor, directions: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Distances (N,) where rays enter and leave the box of half side `radius`."""
    safe = torch.where(directions.abs() < 1e-6, torch.full_like(directions, 1e-6), directions)
    first, second = (radius - origins) / safe, (-radius - origins) / safe
    near = torch.minimum(first, second).amax(dim=-1).clamp(min=0)
    return near, torch.maximum(first, second).amin(dim=-1)
