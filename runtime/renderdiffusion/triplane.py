"""The field of three feature planes: density and colour at points of the object's frame.

The planes are (x, y), (x, z) and (y, z). A point's features are the sum of its features in each,
bilinear between the texels' centres. Texels fill the box from border to border; beyond the
outermost centres the values are constant.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

AXES = ((0, 1), (0, 2), (1, 2))  # of the planes; the first runs along a plane's rows
DENSITY_SCALE = 25.0  # per unit of length, at softplus 1
DENSITY_SHIFT = -3.0  # of the raw density, so that the box is nearly empty at first
COLOR_MARGIN = 0.001  # by which colours may overshoot, so that 0 and 1 can be reached


def plane_features(planes: Tensor, points: Tensor, box: float) -> Tensor:
    """Summed features (B, P, C) of planes (B, 3, C, N, N) at points (B, P, 3) in +-box.

    One weighted lookup of the twelve texels around a point in a table of all texels; that is
    several times faster on a CPU than three calls of `grid_sample`.
    """
    batch, count, channels, size, _ = planes.shape
    table = planes.permute(0, 1, 3, 4, 2).reshape(-1, channels)
    place = ((points / box + 1) * (size / 2) - 0.5).clamp(0, size - 1)
    below = place.floor().clamp(max=size - 2) if size > 1 else torch.zeros_like(place)
    share = place - below
    first = below.long()
    index, weight = [], []
    begin = torch.arange(batch, device=planes.device)[:, None] * (count * size * size)
    for plane, (a, b) in enumerate(AXES):
        corner = begin + plane * size * size + first[..., a] * size + first[..., b]
        u, v = share[..., a], share[..., b]
        index += [corner, corner + 1, corner + size, corner + size + 1]
        weight += [(1 - u) * (1 - v), (1 - u) * v, u * (1 - v), u * v]
    flat = torch.stack(index, dim=-1).flatten(0, 1)
    weights = torch.stack(weight, dim=-1).flatten(0, 1).to(table.dtype)
    found: Tensor = _Lookup.apply(table, flat, weights)
    return found.view(*points.shape[:2], channels)


class _Lookup(torch.autograd.Function):
    """Weighted sums (M, C) of rows of a table (T, C): index and weights (M, K).

    Only the table gets a gradient. `embedding_bag`'s own sorts the indices, which takes three times
    as long on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        """See the class."""
        ctx.save_for_backward(index, weights)
        ctx.rows = len(table)
        return functional.embedding_bag(index, table, mode="sum", per_sample_weights=weights)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Of the table."""
        index, weights = ctx.saved_tensors
        table = gradient.new_zeros(ctx.rows, gradient.shape[1])
        for corner in range(index.shape[1]):
            table.index_add_(0, index[:, corner], gradient * weights[:, corner, None])
        return table, None, None


class FieldDecoder(nn.Module):
    """Two layers from a point's features to its raw density and colour."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(channels, hidden)
        self.second = nn.Linear(hidden, 4)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (..., C) to density (...,) >= 0 per unit of length and colour (..., 3) 0..1."""
        raw = self.second(functional.relu(self.first(features)))
        density = DENSITY_SCALE * functional.softplus(raw[..., 0] + DENSITY_SHIFT)
        color = torch.sigmoid(raw[..., 1:]) * (1 + 2 * COLOR_MARGIN) - COLOR_MARGIN
        return density, color.clamp(0, 1)
