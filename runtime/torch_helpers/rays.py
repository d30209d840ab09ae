"""Camera rays as tensors, for volume rendering."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from xray_addon.camera import Camera

_SMALL = 1e-6  # directions below it count as parallel to a side of the box


def camera_rays(cameras: Sequence[Camera], size: int, device: torch.device) -> tuple[Tensor, ...]:
    """Origins and unit directions (B, size * size, 3) through the pixels of square images."""
    row, column = np.divmod(np.arange(size * size), size)
    origins, directions = [], []
    for camera in cameras:
        local = camera.resized(size, size).ray_directions(row, column)
        directions.append(local @ camera.camera_to_world[:3, :3].T)
        origins.append(np.broadcast_to(camera.position, directions[-1].shape))
    return tuple(
        torch.from_numpy(np.stack(parts)).float().to(device) for parts in (origins, directions)
    )


def box_span(origins: Tensor, directions: Tensor, box: float) -> tuple[Tensor, Tensor]:
    """Distances (...) at which rays (..., 3) enter and leave [-box, box]^3.

    The two are equal if a ray misses the box, or if the box is behind it.
    """
    safe = torch.where(directions.abs() < _SMALL, _SMALL, directions)
    first, second = (-box - origins) / safe, (box - origins) / safe
    near = torch.minimum(first, second).amax(dim=-1).clamp(min=0)
    far = torch.maximum(first, second).amin(dim=-1)
    return near, torch.maximum(near, far)
