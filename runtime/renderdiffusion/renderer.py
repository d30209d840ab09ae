"""The volume renderer: samples along rays, and their sums.

Distances are measured along rays of unit length. An interval of length d with density s transmits
exp(-s d) of the light (Max 1995).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from xray_addon.camera import Camera
from xray_addon.errors import XRayError

from ..torch_helpers.rays import box_span

# Density (B, P) and colour (B, P, 3) at points (B, P, 3).
Field = Callable[[Tensor], tuple[Tensor, Tensor]]
_SMALL = 1e-6


@dataclass(frozen=True, eq=False)
class Rays:
    """The result for rays (B, R): color (B, R, 3) in front of the background, alpha (B, R) 0..1,
    and depth (B, R), the mean distance of what is visible, 0 if nothing is."""

    color: Tensor
    alpha: Tensor
    depth: Tensor


def check_outside(cameras: Sequence[Camera], box: float) -> None:
    """Raise XRayError `camera_inside` if a camera is within the box [-box, box]^3."""
    for camera in cameras:
        if (np.abs(camera.position) <= box).all():
            raise XRayError(
                "camera_inside",
                f"The camera at {np.round(camera.position, 2).tolist()} is inside the object's "
                f"box, which reaches from -{box:g} to {box:g}.",
                "Move the camera away from the object.",
            )


def even_edges(near: Tensor, far: Tensor, count: int) -> Tensor:
    """Edges (B, R, count + 1) of `count` equal intervals from `near` to `far` (B, R)."""
    share = torch.linspace(0, 1, count + 1, device=near.device)
    return near[..., None] + (far - near)[..., None] * share


def jittered(edges: Tensor, random: torch.Generator | None) -> Tensor:
    """A point (B, R, S) in each interval between `edges`: random (stratified), or its middle."""
    low, high = edges[..., :-1], edges[..., 1:]
    if random is None:
        return (low + high) / 2
    share = torch.rand(low.shape, generator=random).to(low.device)
    return low + (high - low) * share


def importance_edges(edges: Tensor, weights: Tensor, count: int) -> Tensor:
    """Edges (B, R, count + 1) of intervals with equal shares of the `weights` (B, R, S).

    Each interval gets the maximum of its own and its neighbours' weight, because surfaces are
    between samples (Barron et al. 2021), and at least a small share, so that nothing is lost.
    """
    weights = functional.max_pool1d(weights, 3, stride=1, padding=1) + 0.01 / weights.shape[-1]
    total = weights.cumsum(dim=-1)
    total = torch.cat([torch.zeros_like(total[..., :1]), total], dim=-1)
    total = total / total[..., -1:]
    wanted = torch.linspace(0, 1, count + 1, device=edges.device).expand(*edges.shape[:-1], -1)
    above = torch.searchsorted(total, wanted.contiguous(), right=True)
    above = above.clamp(1, edges.shape[-1] - 1)
    low, high = total.gather(-1, above - 1), total.gather(-1, above)
    share = ((wanted - low) / (high - low).clamp(min=_SMALL)).clamp(0, 1)
    start, end = edges.gather(-1, above - 1), edges.gather(-1, above)
    return start + (end - start) * share


def weights_of(density: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The share of light (B, R, S) from each interval, and the share that passes all (B, R).

    density, lengths : (B, R, S). All shares add up to 1.
    """
    thickness = density * lengths
    before = torch.cumsum(thickness, dim=-1)
    passed = torch.exp(-torch.cat([torch.zeros_like(before[..., :1]), before], dim=-1))
    return passed[..., :-1] - passed[..., 1:], passed[..., -1]


def render_rays(
    field: Field,
    origins: Tensor,
    directions: Tensor,
    *,
    box: float,
    background: Tensor,
    samples: int,
    fine_samples: int = 0,
    random: torch.Generator | None = None,
    occupied: Callable[[Tensor], Tensor] | None = None,
) -> Rays:
    """Render rays (B, R, 3) of `field` in front of a background (3,) or (B, 1, 3).

    samples : number of equal intervals. fine_samples : number of intervals placed by the result of
    the first pass; then only these are summed. random : draws a point in each interval; None for
    the middle. occupied : for one scene (B = 1), which (P,) of points (P, 3) may have density; the
    field is evaluated only there.
    """
    near, far = box_span(origins, directions, box)
    edges = even_edges(near, far, samples)
    if fine_samples:
        with torch.no_grad():
            density, _ = _query(field, origins, directions, jittered(edges, random), occupied)
            weights, _ = weights_of(density, edges.diff(dim=-1))
        edges = importance_edges(edges, weights, fine_samples)
    along = jittered(edges, random)
    density, color = _query(field, origins, directions, along, occupied)
    weights, passed = weights_of(density, edges.diff(dim=-1))
    alpha = 1 - passed
    seen = (weights[..., None] * color).sum(dim=-2) + passed[..., None] * background
    depth = (weights * along).sum(dim=-1) / alpha.clamp(min=_SMALL)
    return Rays(seen, alpha, depth)


def _query(
    field: Field,
    origins: Tensor,
    directions: Tensor,
    along: Tensor,
    occupied: Callable[[Tensor], Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """Density (B, R, S) and colour (B, R, S, 3) at distances `along` (B, R, S) of rays."""
    points = (origins[..., None, :] + along[..., None] * directions[..., None, :]).flatten(1, 2)
    if occupied is None:
        density, color = field(points)
        return density.view(along.shape), color.view(*along.shape, 3)
    there = occupied(points[0])
    density, color = points.new_zeros(points.shape[:2]), points.new_zeros(points.shape)
    if there.any():
        density[:, there], color[:, there] = field(points[:, there])
    return density.view(along.shape), color.view(*along.shape, 3)
