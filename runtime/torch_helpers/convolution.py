"""Convolutions that keep the size of their input, computed in the way that is fastest."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional


def convolve(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """The convolution (B, O, H, W) of `x` (B, C, H, W). kernel : (O, K, K, C), K odd. bias : (O,).

    Training in float32 on a CPU goes by `winograd` if numba is installed.
    """
    size = kernel.shape[1]
    if (
        size == 3
        and torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
    ):
        height, width = x.shape[2:]  # winograd's tiles have 4 x 4 outputs
        winograd = None if height % 4 or width % 4 else _winograd()
        if winograd is not None:
            return winograd(x, kernel, bias)
    return functional.conv2d(x, kernel.permute(0, 3, 1, 2), bias, padding=size // 2)


@cache
def _winograd() -> Callable[[Tensor, Tensor, Tensor], Tensor] | None:
    """`winograd.convolve`, or None without numba."""
    try:
        from .winograd import convolve as winograd
    except (ImportError, OSError):  # OSError: one of numba's libraries
        return None
    return winograd
