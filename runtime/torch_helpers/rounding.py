"""Kernels in one byte a number, for weights on disk."""

from __future__ import annotations

import torch
from torch import Tensor

SCALE = ".scale"  # behind a kernel's name: what its numbers are to be multiplied by


def in_bytes(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """A kernel (out, ...) as int8 of the same shape, and what they are to be multiplied by
    (out,)."""
    rows = kernel.flatten(1)
    scale = (rows.abs().amax(dim=1) / 127).clamp(min=1e-30)  # for rows of zeros
    return (rows / scale[:, None]).round().to(torch.int8).view(kernel.shape), scale


def from_bytes(state: dict[str, Tensor]) -> None:
    """Multiply the kernels in `state` by their scales, which are taken out of it."""
    for name in [name for name in state if name.endswith(SCALE)]:
        scale = state.pop(name)
        kernel = state[name.removesuffix(SCALE)]
        kernel.flatten(1).mul_(scale[:, None])
