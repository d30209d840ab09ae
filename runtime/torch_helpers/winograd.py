"""3x3 convolutions on a CPU with a quarter of the multiplications, for training in float32.

Winograd's F(4x4, 3x3) (Lavin and Gray, arXiv 1509.09308): a tile of 6x6 inputs and a kernel are
transformed, multiplied at 36 places, and the products transformed back into 4x4 outputs. So a
convolution becomes 36 matrix products over the channels, and its gradients become as many. The
transforms are compiled by numba; importing this raises ImportError or OSError if numba is unusable.
"""

# numba infers the types of what it compiles.
# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from xray_addon.compiling import Compiled, inline

TILE = 4  # outputs of a tile, along each side
_KERNEL = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64
)
_KERNELS = torch.kron(_KERNEL, _KERNEL).div(24**2).float()  # (36, 9) of the transform of kernels


def convolve(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """The convolution of `x` (B, C, H, W) that keeps its size, with gradients; float32, on the CPU.

    kernel : (O, 3, 3, C). bias : (O,). H and W must be multiples of `TILE`. The result (B, O, H, W)
    is in channels-last order, and equals that of `conv2d` up to rounding: a hundred thousandth of
    its largest values.
    """
    result: Tensor = _Convolution.apply(x, kernel, bias)
    return result


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1).contiguous()
        batch, height, width, inputs = x.shape
        outputs, tiles = len(kernel), batch * (height // TILE) * (width // TILE)
        places = x.new_empty(36, tiles, inputs)
        _to_places(x.numpy(), places.numpy())
        kernels = _KERNELS @ kernel.permute(1, 2, 3, 0).reshape(9, inputs * outputs)
        kernels = kernels.view(36, inputs, outputs)
        y = x.new_empty(batch, height, width, outputs)
        _from_products(torch.bmm(places, kernels).numpy(), bias.numpy(), y.numpy())
        ctx.save_for_backward(places, kernels)
        return y.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor]:
        places, kernels = ctx.saved_tensors
        of_y = gradients[0].permute(0, 2, 3, 1).contiguous()
        (_, tiles, inputs), outputs = places.shape, kernels.shape[2]
        of_products = of_y.new_empty(36, tiles, outputs)
        _to_products(of_y.numpy(), of_products.numpy())
        of_x = of_kernel = None
        if ctx.needs_input_grad[1]:
            of_kernels = torch.bmm(places.transpose(1, 2), of_products).view(36, inputs * outputs)
            of_kernel = (_KERNELS.T @ of_kernels).view(3, 3, inputs, outputs).permute(3, 0, 1, 2)
        if ctx.needs_input_grad[0]:
            of_x = of_y.new_zeros(*of_y.shape[:3], inputs)
            _from_places(torch.bmm(of_products, kernels.transpose(1, 2)).numpy(), of_x.numpy())
            of_x = of_x.permute(0, 3, 1, 2)
        return of_x, of_kernel, of_y.sum(dim=(0, 1, 2))


# The transforms along one side, for numbers of one channel: of inputs and of products, and the
# transposed ones of their gradients.


@inline
def _place(a, b, c, d, e, f):
    """6 transformed inputs of 6."""
    even, odd, outer, inner = e - 4 * c, d - 4 * b, e - c, 2 * (d - b)
    return (
        4 * a - 5 * c + e,
        even + odd,
        even - odd,
        outer + inner,
        outer - inner,
        4 * b - 5 * d + f,
    )


@inline
def _place_gradient(a, b, c, d, e, f):
    """The gradients of 6 inputs from those of 6 transformed ones."""
    sum_1, difference_1, sum_2, difference_2 = b + c, b - c, d + e, 2 * (d - e)
    return (
        4 * a,
        4 * (f - difference_1) - difference_2,
        -5 * a - 4 * sum_1 - sum_2,
        difference_1 + difference_2 - 5 * f,
        a + sum_1 + sum_2,
        f,
    )


@inline
def _output(a, b, c, d, e, f):
    """4 outputs of 6 products."""
    sum_1, difference_1, sum_2, difference_2 = b + c, b - c, d + e, d - e
    return (
        a + sum_1 + sum_2,
        difference_1 + 2 * difference_2,
        sum_1 + 4 * sum_2,
        difference_1 + 8 * difference_2 + f,
    )


@inline
def _output_gradient(a, b, c, d):
    """The gradients of 6 products from those of 4 outputs."""
    even_1, odd_1, even_2, odd_2 = a + c, b + d, a + 4 * c, 2 * b + 8 * d
    return a, even_1 + odd_1, even_1 - odd_1, even_2 + odd_2, even_2 - odd_2, d


# The six or four rows of channels to which these are applied. Channels come last and are innermost,
# so that the compiler vectorises over them.


@inline
def _column(half, j):
    return half[0, j], half[1, j], half[2, j], half[3, j], half[4, j], half[5, j]


@inline
def _row(half, j):
    return half[j, 0], half[j, 1], half[j, 2], half[j, 3], half[j, 4], half[j, 5]


@inline
def _transformed(places, j, tile):
    """Column `j` of a tile's 6x6 transformed inputs or products."""
    return (
        places[j, tile],
        places[6 + j, tile],
        places[12 + j, tile],
        places[18 + j, tile],
        places[24 + j, tile],
        places[30 + j, tile],
    )


@inline
def _inputs(x, i, row, left, outside):
    """Row `row` of a tile's 6x6 inputs; `outside` stands for what is not in the image."""
    inside = 0 <= row < x.shape[1]
    y = row if inside else 0
    return (
        x[i, y, left - 1] if inside and left > 0 else outside,
        x[i, y, left] if inside else outside,
        x[i, y, left + 1] if inside else outside,
        x[i, y, left + 2] if inside else outside,
        x[i, y, left + 3] if inside else outside,
        x[i, y, left + 4] if inside and left + 4 < x.shape[2] else outside,
    )


@inline
def _outputs(y, i, row, left):
    """Row `row` of a tile's 4x4 outputs."""
    return y[i, row, left], y[i, row, left + 1], y[i, row, left + 2], y[i, row, left + 3]


@inline
def _write_places(given, made):
    a, b, c, d, e, f = given
    p, q, r, s, t, u = made
    for k in range(len(a)):
        p[k], q[k], r[k], s[k], t[k], u[k] = _place(a[k], b[k], c[k], d[k], e[k], f[k])


@inline
def _add_place_gradients(given, made):
    a, b, c, d, e, f = given
    p, q, r, s, t, u = made
    for k in range(len(a)):
        g = _place_gradient(a[k], b[k], c[k], d[k], e[k], f[k])
        p[k] += g[0]
        q[k] += g[1]
        r[k] += g[2]
        s[k] += g[3]
        t[k] += g[4]
        u[k] += g[5]


@inline
def _write_outputs(given, bias, made):
    a, b, c, d, e, f = given
    p, q, r, s = made
    for k in range(len(a)):
        g = _output(a[k], b[k], c[k], d[k], e[k], f[k])
        p[k], q[k], r[k], s[k] = g[0] + bias[k], g[1] + bias[k], g[2] + bias[k], g[3] + bias[k]


@inline
def _write_output_gradients(given, made):
    a, b, c, d = given
    p, q, r, s, t, u = made
    for k in range(len(a)):
        p[k], q[k], r[k], s[k], t[k], u[k] = _output_gradient(a[k], b[k], c[k], d[k])


@inline
def _corner(tile, height, width):
    """The image, the top and the left of a tile."""
    across = width // TILE
    row, column = tile // across, tile % across
    down = height // TILE
    return row // down, row % down * TILE, column * TILE


# Each function transforms all tiles along one side and then along the other.


@Compiled
def _to_places(x, places):
    """Write transformed inputs (36, T, C) of `x` (B, H, W, C), which has zeros around it."""
    half = np.empty((6, 6, x.shape[3]), np.float32)
    zeros = np.zeros(x.shape[3], np.float32)
    for tile in range(places.shape[1]):
        i, top, left = _corner(tile, x.shape[1], x.shape[2])
        for j in range(6):
            _write_places(_inputs(x, i, top + j - 1, left, zeros), _row(half, j))
        for j in range(6):
            _write_places(_column(half, j), _transformed(places, j, tile))


@Compiled
def _from_places(places, x):
    """Add to gradients (B, H, W, C) of inputs those of transformed ones (36, T, C)."""
    half = np.empty((6, 6, x.shape[3]), np.float32)
    unused = np.zeros(x.shape[3], np.float32)
    for tile in range(places.shape[1]):
        i, top, left = _corner(tile, x.shape[1], x.shape[2])
        half[:] = 0
        for j in range(6):
            _add_place_gradients(_transformed(places, j, tile), _column(half, j))
        for j in range(6):
            _add_place_gradients(_row(half, j), _inputs(x, i, top + j - 1, left, unused))


@Compiled
def _from_products(products, bias, y):
    """Write outputs (B, H, W, O) of products (36, T, O), and add `bias` (O,)."""
    half = np.empty((4, 6, y.shape[3]), np.float32)
    zeros = np.zeros(y.shape[3], np.float32)
    for tile in range(products.shape[1]):
        i, top, left = _corner(tile, y.shape[1], y.shape[2])
        for j in range(6):
            column = half[0, j], half[1, j], half[2, j], half[3, j]
            _write_outputs(_transformed(products, j, tile), zeros, column)
        for j in range(4):
            _write_outputs(_row(half, j), bias, _outputs(y, i, top + j, left))


@Compiled
def _to_products(y, products):
    """Write gradients (36, T, O) of products, from those of outputs (B, H, W, O)."""
    half = np.empty((4, 6, y.shape[3]), np.float32)
    for tile in range(products.shape[1]):
        i, top, left = _corner(tile, y.shape[1], y.shape[2])
        for j in range(4):
            _write_output_gradients(_outputs(y, i, top + j, left), _row(half, j))
        for j in range(6):
            column = half[0, j], half[1, j], half[2, j], half[3, j]
            _write_output_gradients(column, _transformed(products, j, tile))
