"""Depths of hidden surfaces, made piecewise planar.

The network is unsure of the depths it cannot see, so its hidden surfaces have dents. Most true ones
are planes or bend evenly. So the depths are fitted by a surface with little second-order total
variation: a fit that stays close to them and has few and sharp bends, instead of many small ones,
because bends are penalised by their size and not by its square. A blur that removes the same dents
would also round off the edges.

In a camera's image, the inverse of the depth along the optical axis is linear on each plane, so
that inverse is what is fitted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

from xray_addon.camera import Camera

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

GRID = 64  # the fit's pixels along a side; the network's own resolution
MARGIN = 3  # px of GRID around the mask, into which the surface is continued
STRENGTH = 30.0
SHARP = 0.002  # smaller bends (frame units per squared px of GRID) are penalised by their square
ROUNDS = 8
BLUR = 2.0  # px of the depths; removes the kinks of the interpolation from GRID


def piecewise_planar(depth: Floats, mask: NDArray[np.bool_], camera: Camera) -> Floats:
    """`depth` (H, W) along the rays of `camera`, fitted where `mask` is set and continued beyond.

    H and W must be the same multiple of `GRID`; depths must be above 0 everywhere. Without a mask
    nothing changes.
    """
    if not mask.any():
        return depth
    size = len(depth)
    row, column = np.divmod(np.arange(size * size), size)
    cosine = -camera.ray_directions(row, column)[:, 2].reshape(size, size)
    # Near the origin this changes by as much as the depth.
    inverse = camera.distance**2 / (depth * cosine)
    weight = _shrink(mask.astype(float))
    small = np.where(
        weight > 0, _shrink(inverse * mask) / np.maximum(weight, 1e-6), _shrink(inverse)
    )
    rows, columns = (
        slice(max(0, line.min() - MARGIN), line.max() + MARGIN + 1) for line in np.nonzero(weight)
    )
    small[rows, columns] = _fit(small[rows, columns], weight[rows, columns])
    place = (np.arange(size) + 0.5) * GRID / size - 0.5
    large = ndimage.map_coordinates(
        small, np.meshgrid(place, place, indexing="ij"), order=1, mode="nearest"
    )
    # A continued plane may pass through infinity; stay within the range of the depths.
    large = large.clip(inverse.min(), inverse.max())
    return ndimage.gaussian_filter(camera.distance**2 / (large * cosine), BLUR).astype(np.float32)


def _shrink(values: Doubles) -> Doubles:
    """`values` (H, W) averaged to (GRID, GRID)."""
    factor = len(values) // GRID
    return values.reshape(GRID, factor, GRID, factor).mean(axis=(1, 3))


def _fit(values: Doubles, weight: Doubles) -> Doubles:
    """The surface (h, w) close to `values` where they have a weight, with few and sharp bends.

    Minimises the weighted squares of its distance plus STRENGTH times a norm of its second
    differences that grows linearly above SHARP, by iteratively reweighted least squares.
    """
    height, width = values.shape
    bends = _second_differences(height, width)
    share = np.ones(bends[0].shape[0])
    # The small weight everywhere keeps pixels beyond the mask determinate.
    data = weight.ravel() + 1e-6
    fitted = values.ravel()
    for _ in range(ROUNDS):
        penalty = sum(bend.T @ sparse.diags_array(share) @ bend for bend in bends)
        matrix = sparse.diags_array(data) + STRENGTH * penalty
        fitted = spsolve(matrix.tocsc(), data * values.ravel())
        size = np.sqrt(sum((bend @ fitted) ** 2 for bend in bends))
        share = SHARP / np.maximum(size, SHARP)
    return fitted.reshape(height, width)


def _second_differences(height: int, width: int) -> tuple[sparse.csr_array, ...]:
    """Sparse matrices (height * width, height * width): along rows, along columns, and the mixed
    one times the root of 2, so that their squares sum to the same for every direction."""

    def stencil(count: int, weights: dict[int, float]) -> sparse.csr_array:
        """One row an entry; a row that would reach beyond the ends is 0."""
        steps = np.arange(count)
        fits = (steps + min(weights) >= 0) & (steps + max(weights) < count)
        values = list(weights.values())
        rows = sparse.diags_array(values, offsets=list(weights), shape=(count, count))
        return sparse.csr_array(sparse.diags_array(fits.astype(float)) @ rows)

    second, first = {-1: 1.0, 0: -2.0, 1: 1.0}, {0: -1.0, 1: 1.0}
    return (
        sparse.kron(sparse.eye_array(height), stencil(width, second), format="csr"),
        sparse.kron(stencil(height, second), sparse.eye_array(width), format="csr"),
        sparse.kron(stencil(height, first), stencil(width, first), format="csr") * np.sqrt(2),
    )
