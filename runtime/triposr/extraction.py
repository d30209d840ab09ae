"""TripoSR's field as a grid that is cheap to evaluate, for mesh extraction."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ..torch_helpers.memory import Chunks
from .model import FieldPerceptron


class GridField:
    """Raw density on a grid of `resolution`^3 points, evaluated in pieces.

    On a grid the planes' features repeat: each plane has only resolution^2 different ones. The
    perceptron's first layer is linear, so it is applied to those and summed for each point.

    alive : called before each piece of work; it may raise to cancel it.
    """

    def __init__(
        self,
        planes: Tensor,
        decoder: FieldPerceptron,
        resolution: int,
        chunks: Chunks,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self.resolution = resolution
        self._alive = alive
        self.device = planes.device
        self._chunks = chunks
        self._layers = list(decoder.layers)
        first = self._layers[0]
        axis = torch.linspace(-1, 1, resolution, device=planes.device)
        # Plane coordinates are (width, height); grids are indexed (first axis, second axis).
        where = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)
        features = functional.grid_sample(
            planes,
            where.expand(3, -1, -1, -1),
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )  # (3, c, R, R)
        weight = first.weight.unflatten(1, (3, -1))  # (n, 3, c)
        tables = torch.einsum("nac,aczw->azwn", weight, features).flatten(1, 2)
        tables[0] += first.bias
        self._tables = tables  # (3, R R, n)

    def __call__(self, index: Tensor) -> Tensor:
        """Raw density (N,) at points (N,) with the index (x * R + y) * R + z."""
        return self._chunks(self._evaluate, index)

    def _evaluate(self, index: Tensor) -> Tensor:
        self._alive()
        size = self.resolution
        x, y, z = index // (size * size), index // size % size, index % size
        xy, xz, yz = self._tables
        hidden = xy[x * size + y]
        hidden += xz[x * size + z]
        hidden += yz[y * size + z]
        for layer in self._layers[1:-1]:
            # In place, because these are large temporary tensors.
            hidden = _activate(layer, hidden)
        last = self._layers[-1]
        return hidden @ last.weight[0] + last.bias[0]


def _activate(layer: torch.nn.Module, hidden: Tensor) -> Tensor:
    if isinstance(layer, torch.nn.SiLU):
        return functional.silu(hidden, inplace=True)
    if isinstance(layer, torch.nn.ReLU):
        return functional.relu(hidden, inplace=True)
    return layer(hidden)


def density_level(threshold: float, bias: float) -> float:
    """The raw density for the density `threshold`."""
    return math.log(threshold) - bias
