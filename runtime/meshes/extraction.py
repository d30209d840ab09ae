"""Extracts meshes from a field, computing dense values only near the surface.

The grid has R^3 points, including the box's corners. Values are computed first at every fourth
point along each axis, then more finely where the surface may be. Finally, the surface is followed
wherever it leaves the known region. A piece of the surface is therefore found completely, or, if
it is smaller than the first stride, possibly not at all.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.measure import marching_cubes
from torch import Tensor
from torch.nn import functional

log = logging.getLogger(__name__)

STRIDES = (4, 2, 1)
DISTANCE_STRIDES = (8, 4, 2, 1)
# If the values around a cell have the range s, the surface may be there if they are within this
# multiple of s of the level.
MARGIN = 0.5
# Minimum rise of the field across a cell, relative to its size, if only one surface is near.
_PLAIN_RISE = 0.85
# Value outside the box for closing surfaces that leave it: so low that vertices are on its border.
_FAR_OUTSIDE = -1e6
# The most cells that a surface may cross; each gives about two triangles. The largest ball in the
# box crosses 1.2 million at 512 points a side, a chair at 256 crosses 70,000, noise nearly all.
MOST_CELLS = 1_500_000
# The limit if the mesh is unwrapped, because that time grows faster than the triangles.
MOST_UNWRAPPED_CELLS = 300_000


@dataclass(frozen=True, eq=False)
class Sparse:
    """Values (R, R, R) that are exact near the level. Elsewhere only their side of it is correct.

    cells : (R-1, R-1, R-1) bool, cells with surface. evaluated : number of computed points.
    """

    values: Tensor
    cells: Tensor
    evaluated: int


class TooIntricate(Exception):
    """The surface crosses more than `most` cells. cells : their approximate number."""

    def __init__(self, cells: int, most: int) -> None:
        super().__init__(f"the surface crosses {cells} cells, more than {most}")
        self.cells = cells
        self.most = most

    def fewer(self, resolution: int) -> int:
        """A number of points per side, below `resolution`, at which the surface should fit."""
        return int(0.9 * resolution * math.sqrt(self.most / self.cells))


def fitting(sample: Callable[[int], Sparse], resolution: int, say: Callable[[str], None]) -> Sparse:
    """`sample(resolution)`, with fewer points per side while that is `TooIntricate`.

    say : called with a sentence for people if there are fewer points.
    """
    while True:
        try:
            return sample(resolution)
        except TooIntricate as found:
            before, resolution = resolution, found.fewer(resolution)
            message = f"Too intricate for {before} points a side, using {resolution}"
            log.warning("%s: about %s triangles", message, f"{2 * found.cells:,}")
            say(message)


def strides_for(resolution: int, width: int) -> tuple[int, ...]:
    """The `STRIDES` that skip no pixel of feature planes of width `width`, and 1."""
    return tuple(stride for stride in STRIDES if stride == 1 or stride * width <= resolution)


def sample_surface(
    evaluate: Callable[[Tensor], Tensor],
    resolution: int,
    level: float,
    device: torch.device,
    report: Callable[[int, int], None] | None = None,
    most: int = MOST_CELLS,
    strides: tuple[int, ...] = STRIDES,
) -> Sparse:
    """The values of a field on a grid near `level`.

    evaluate : maps flat indices (N,) to values (N,). report : called with (step, of); may raise.
    most : maximum cells that the surface crosses. strides : each half of the previous, down to 1.

    Raises TooIntricate as early as possible.
    """
    axes = [_axis(resolution, stride, device) for stride in strides]
    steps = len(strides) + 1
    report = report or (lambda *_: None)
    report(0, steps)
    coarse = axes[0]
    values = evaluate(_flat(coarse, resolution)).view(3 * (len(coarse),)) - level
    evaluated = values.numel()
    known = torch.ones_like(values, dtype=torch.bool)
    for number, (before, after) in enumerate(pairwise(axes)):
        report(number + 1, steps)
        _bound(_crossed(values > 0), most, strides[number])
        # Each finer point starts with the value of the coarser point below it.
        below = torch.searchsorted(before, after, right=True) - 1
        shared = torch.isin(after, before)
        cells = _upsample(_candidates(values, known), below[:-1])
        wanted = _corners(cells)
        values, known = _upsample(values, below), _upsample(known, below)
        known &= shared[:, None, None] & shared[:, None] & shared
        wanted &= ~known
        evaluated += _fill(evaluate, values, known, wanted, after, level, resolution)
    fine = axes[-1]
    while True:
        report(steps - 1, steps)
        cells = _crossed(values > 0)
        _bound(cells, most)
        followed = cells & ~_all_corners(known)
        if not followed.any():
            break
        wanted = _corners(_blocks(followed, strides[0])) & ~known
        evaluated += _fill(evaluate, values, known, wanted, fine, level, resolution)
    return Sparse(values, cells, evaluated)


def sample_distances(
    evaluate: Callable[[Tensor], Tensor],
    resolution: int,
    slope: float,
    device: torch.device,
    report: Callable[[int, int], None] | None = None,
    most: int = MOST_CELLS,
) -> Sparse:
    """The values of a distance field on a grid near 0; computes far fewer points.

    Such a field is nearly linear between known points, so finer values are interpolated from
    coarser ones. Then all corners of cells that the surface seems to cross are computed, until
    every crossed cell is exact.

    evaluate : maps flat indices (N,) to values (N,), positive inside. slope : maximum change of the
    value from one point to the next. report : called with (step, of); may raise. most : maximum
    cells that the surface crosses.

    Raises TooIntricate as early as possible.
    """
    report = report or (lambda *_: None)
    axes = [_axis(resolution, stride, device) for stride in DISTANCE_STRIDES]
    report(0, len(axes))
    coarse = axes[0]
    values = evaluate(_flat(coarse, resolution)).view(3 * (len(coarse),))
    evaluated = values.numel()
    known = torch.ones_like(values, dtype=torch.bool)
    for number, (before, after) in enumerate(pairwise(axes), 1):
        report(number, len(axes))
        stride = DISTANCE_STRIDES[number - 1]
        _bound(_crossed(values > 0), most, stride)
        doubtful = _doubtful(values, known, slope * stride, anywhere=number == 1)
        below = torch.searchsorted(before, after, right=True) - 1
        shared = torch.isin(after, before)
        known = _upsample(known, below) & shared[:, None, None] & shared[:, None] & shared
        values = _interpolated(values, before, after)
        wanted = _corners(_upsample(doubtful, below[:-1])) & ~known
        evaluated += _fill(evaluate, values, known, wanted, after, 0.0, resolution)
        while True:
            report(number, len(axes))
            cells = _crossed(values > 0)
            _bound(cells, most, DISTANCE_STRIDES[number])
            wanted = _corners(cells) & ~known
            if not wanted.any():
                break
            evaluated += _fill(evaluate, values, known, wanted, after, 0.0, resolution)
    return Sparse(values, _crossed(values > 0), evaluated)


def _doubtful(values: Tensor, known: Tensor, step: float, *, anywhere: bool) -> Tensor:
    """Cells with known corners that may contain a surface although their corners' signs agree.

    The surface must be near: at most half a cell's diagonal from a corner. Unless `anywhere`, the
    distances must also rise less across the cell than they would next to a single surface.

    step : maximum change of a value from one corner to the next.
    """
    doubtful = _all_corners(known) & ~_all_corners(values.abs() > step * math.sqrt(3) / 2)
    if anywhere:
        return doubtful
    rise = torch.zeros_like(doubtful, dtype=values.dtype)
    for dim in range(3):
        first, second = _ends(values, dim)
        change = second - first
        for other in {0, 1, 2} - {dim}:
            first, second = _ends(change, other)
            change = (first + second) / 2
        rise += change**2
    return doubtful & (rise < (_PLAIN_RISE * step) ** 2)


def _interpolated(values: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Values on the grid `before`, interpolated trilinearly on the grid `after`."""
    low = (torch.searchsorted(before, after, right=True) - 1).clamp(max=len(before) - 2)
    share = (after - before[low]) / (before[low + 1] - before[low])
    for dim in range(3):
        shape = [1, 1, 1]
        shape[dim] = -1
        first = values.index_select(dim, low)
        values = torch.lerp(first, values.index_select(dim, low + 1), share.view(shape))
    return values


def _bound(cells: Tensor, most: int, stride: int = 1) -> None:
    """Raise TooIntricate if too many cells are crossed on a grid of every `stride`-th point."""
    count = int(cells.sum())
    # At stride 1 there are roughly stride^2 as many, so coarser grids get a larger tolerance.
    if count * stride > most:
        raise TooIntricate(count * stride * stride, most)


def _axis(resolution: int, stride: int, device: torch.device) -> Tensor:
    """Every `stride`-th index below `resolution`, and the last index."""
    index = torch.arange(0, resolution, stride, device=device)
    last = torch.tensor([resolution - 1], device=device)
    return index if index[-1] == last else torch.cat([index, last])


def _flat(axis: Tensor, resolution: int) -> Tensor:
    """Flat indices of the grid whose coordinates along each axis are `axis`."""
    x, y, z = axis[:, None, None], axis[:, None], axis
    return ((x * resolution + y) * resolution + z).flatten()


def _upsample(values: Tensor, index: Tensor) -> Tensor:
    return values[index][:, index][:, :, index]


def _fill(
    evaluate: Callable[[Tensor], Tensor],
    values: Tensor,
    known: Tensor,
    wanted: Tensor,
    axis: Tensor,
    level: float,
    resolution: int,
) -> int:
    """Compute `values` where `wanted`; returns their number."""
    where = wanted.nonzero()
    x, y, z = axis[where].unbind(1)
    values[wanted] = evaluate((x * resolution + y) * resolution + z) - level
    known |= wanted
    return len(where)


def _candidates(values: Tensor, known: Tensor) -> Tensor:
    """Cells that the surface may cross, judged by the values at and around their corners."""
    low = -_pool(-values)
    high = _pool(values)
    margin = MARGIN * (high - low)
    cells = (low - margin < 0) & (high + margin > 0)
    return cells & _all_corners(known)


def _pool(values: Tensor) -> Tensor:
    """The greatest of the 4^3 values around each cell, (n-1)^3."""
    for dim in range(3):
        moved = values.movedim(dim, -1)
        shape = moved.shape
        pooled = functional.max_pool1d(moved.reshape(1, -1, shape[-1]), 4, stride=1, padding=1)
        values = pooled.view(*shape[:-1], -1).movedim(-1, dim)
    return values


def _ends(values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """All but the last and all but the first along `dim`."""
    count = values.shape[dim] - 1
    return values.narrow(dim, 0, count), values.narrow(dim, 1, count)


def _all_corners(points: Tensor) -> Tensor:
    """Cells whose eight corners are all set."""
    for dim in range(3):
        first, second = _ends(points, dim)
        points = first & second
    return points


def _crossed(inside: Tensor) -> Tensor:
    """Cells with corners both inside and outside."""
    every, some = inside, inside
    for dim in range(3):
        first, second = _ends(every, dim)
        every = first & second
        first, second = _ends(some, dim)
        some = first | second
    return some & ~every


def _corners(cells: Tensor) -> Tensor:
    """Points that are a corner of a set cell."""
    points = functional.pad(cells, (0, 1) * 3)
    for dim in range(3):
        first, second = _ends(points, dim)
        # Copied: the source and the target overlap.
        second |= first.clone()
    return points


def _blocks(cells: Tensor, size: int) -> Tensor:
    """The set cells, extended to the aligned blocks of size^3 that contain them."""
    count = cells.shape[0]
    extra = -count % size
    padded = functional.pad(cells, (0, extra) * 3).float()[None, None]
    blocks = functional.max_pool3d(padded, size)[0, 0] > 0
    index = torch.arange(count, device=cells.device) // size
    return _upsample(blocks, index)


def march(
    sparse: Sparse, radius: float, *, method: str = "lewiner", closed: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Vertices (V, 3) within +-radius and faces (F, 3), counter-clockwise seen from outside.

    Values above the level are inside. Both arrays are empty if there is no surface.

    method : of marching cubes. "lewiner" decides ambiguous cells by their values. "lorensen" uses
    Lorensen and Cline's table, as PyMCubes does; it gives other faces on the same vertices.
    closed : whether a surface that leaves the box is closed along its border.
    """
    values, cells = sparse.values, sparse.cells
    if closed:
        values = functional.pad(values, (1, 1) * 3, value=_FAR_OUTSIDE)
        cells = _crossed(values > 0)
    where = cells.nonzero()
    if not len(where):
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32)
    low, high = where.amin(0).tolist(), (where.amax(0) + 1).tolist()
    part = tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))
    of_cells = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    # scikit-image expects a cell's mask at its last corner.
    mask = functional.pad(cells[of_cells], (1, 0) * 3)
    # scikit-image applies Lorensen's table to the corners below the level.
    sign = -1.0 if method == "lorensen" else 1.0
    vertices, faces, _, _ = marching_cubes(
        (sign * values[part]).contiguous().cpu().numpy(),
        0.0,
        mask=mask.cpu().numpy(),
        method=method,
        gradient_direction="ascent" if sign > 0 else "descent",
        allow_degenerate=True,
    )
    first = np.array(low) - int(closed)
    vertices = (vertices + first) * (2 * radius / (sparse.values.shape[0] - 1)) - radius
    return vertices.astype(np.float32), faces.astype(np.int32)
