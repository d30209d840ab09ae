"""The field of a scene code: density and colour at points, and views of it.

The axes are the published ones: z up, the image's viewer at +x, the image's right is +y.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from xray_addon.camera import Camera
from xray_addon.systems.triposr import FRAME

from ..torch_helpers.rays import box_span
from .config import TripoSRConfig
from .model import FieldPerceptron

DISTANCE = FRAME.distance
FOV = FRAME.fov_x
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


def orbit_camera(azimuth: float, elevation: float, size: int) -> Camera:
    """A camera at the published distance from the origin; at 0, 0 it is the viewer's.

    azimuth, elevation : radians, about the z axis and above the ground. size : px per side.
    """
    level = math.cos(elevation)
    eye = np.array([level * math.cos(azimuth), level * math.sin(azimuth), math.sin(elevation)])
    return Camera.look_at(DISTANCE * eye, fov_x=FOV, width=size, height=size)


def render_rays(
    evaluate: Callable[[Tensor], Tensor],
    origins: Tensor,
    directions: Tensor,
    config: TripoSRConfig,
) -> tuple[Tensor, Tensor]:
    """Colours on white (N, 3) and opacity (N,) along rays (N, 3).

    evaluate : maps points (M, 3) to raw density and colour (M, 4).
    """
    near, far = box_span(origins, directions, config.radius * _SHRINK)
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
