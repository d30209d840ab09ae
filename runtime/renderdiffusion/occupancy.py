"""Finds where a field may have density, so that rays can skip the rest."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

CELLS = 48  # per side of the box
LEAST = 1e-3  # opacity across a cell below which it counts as empty


class Occupancy:
    """Which cells (G, G, G) of the box [-box, box]^3 may have density."""

    def __init__(self, cells: Tensor, box: float) -> None:
        self.cells = cells
        self.box = box

    @classmethod
    def of(cls, density: Callable[[Tensor], Tensor], box: float, device: torch.device) -> Occupancy:
        """From a field's density (P,) at points (P, 3); neighbours of occupied cells count too."""
        axis = ((torch.arange(CELLS, device=device) + 0.5) / CELLS * 2 - 1) * box
        points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)
        with torch.no_grad():
            there = density(points) * (2 * box / CELLS) > LEAST
        grid = there.view(1, 1, CELLS, CELLS, CELLS).float()
        grown = functional.max_pool3d(grid, 3, stride=1, padding=1)
        return cls(grown.view(-1) > 0, box)

    def __call__(self, points: Tensor) -> Tensor:
        """Whether there may be density (P,) at points (P, 3)."""
        cell = ((points / self.box + 1) * (CELLS / 2)).long().clamp(0, CELLS - 1)
        return self.cells[(cell[:, 0] * CELLS + cell[:, 1]) * CELLS + cell[:, 2]]
