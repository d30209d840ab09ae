"""Interpolates layers to a higher resolution."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from xray_addon.canonical import FAR, NEAR

# Neighbouring cells whose depths differ by more (frame units) belong to different surfaces.
DEPTH_GAP = 0.12
# Values are extended this many cells beyond a layer's outline, for thin parts outside of it.
SPREAD = 8


def enlarge_frames(frames: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Frames (B, L, 8, S, S), hits as logits, at `size`, and where they then have values
    (B, L, 1, size, size)."""
    flat = frames.flatten(0, 1)
    logit = flat[:, 7:]
    depth = (flat[:, :1] * 0.5 + 0.5) * (FAR - NEAR) + NEAR
    values = torch.cat([depth, flat[:, 1:7]], dim=1)
    values = enlarge(values, (logit > 0).float(), (size, size))
    depth = (values[:, :1] - NEAR) / (FAR - NEAR) * 2 - 1
    share = functional.interpolate(logit, size=(size, size), mode="bilinear", align_corners=False)
    fine = torch.cat([depth, values[:, 1:], share], dim=1)
    return fine.unflatten(0, frames.shape[:2]), (values[:, :1] > 0).unflatten(0, frames.shape[:2])


def enlarge(values: Tensor, hit: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Values (L, C, S, S) at a larger size, from cells with a hit only.

    The first channel is depth. Across a gap in it the nearest cell is used instead of
    interpolation, so that no value lies between two surfaces.
    """
    # Extend the values beyond the outline, so that the whole finer outline has some.
    spread, weight = values * hit, hit
    for _ in range(SPREAD):
        share = functional.avg_pool2d(weight, 3, 1, 1)
        fill = (weight == 0) & (share > 0)
        total = functional.avg_pool2d(spread, 3, 1, 1)
        spread = torch.where(fill, total / share.clamp(min=1e-6), spread)
        weight = torch.where(fill, torch.ones_like(weight), weight)
    gap = _depth_range(spread[:, :1], weight) > DEPTH_GAP
    # The network folds 2x2 pixels into channels, which leaves a faint 2x2 pattern: blur it.
    soft = binomial(spread * weight) / binomial(weight).clamp(min=1e-6)
    spread = torch.where(gap, spread, soft * weight)
    smooth = functional.interpolate(spread * weight, size=size, mode="bilinear")
    support = functional.interpolate(weight, size=size, mode="bilinear")
    smooth = smooth / support.clamp(min=1e-6)
    nearest = functional.interpolate(spread, size=size, mode="nearest")
    gap = functional.interpolate(gap.float(), size=size, mode="nearest") > 0
    return torch.where(gap, nearest, smooth)


def _depth_range(depth: Tensor, weight: Tensor) -> Tensor:
    """Maximum minus minimum depth (L, 1, S, S) of the 3x3 cells around each, where `weight` > 0."""
    none = torch.full_like(depth, -math.inf)
    high = functional.max_pool2d(torch.where(weight > 0, depth, none), 3, 1, 1)
    low = -functional.max_pool2d(torch.where(weight > 0, -depth, none), 3, 1, 1)
    return (high - low).nan_to_num(0.0)


def binomial(values: Tensor) -> Tensor:
    """Values (L, C, S, S) blurred by the 3x3 binomial kernel, with zeros beyond the border."""
    kernel = torch.tensor([1.0, 2.0, 1.0], device=values.device) / 4
    kernel = (kernel[:, None] * kernel).expand(values.shape[1], 1, 3, 3)
    return functional.conv2d(values, kernel, padding=1, groups=values.shape[1])
