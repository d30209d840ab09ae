"""Optimisers for networks of a few large matrix products, and the average of their weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .configs import RunConfig

_AVERAGE_STEPS = 4  # between two updates of the averaged weights


class Optimizers:
    """Muon (Jordan et al. 2024: orthogonalised momentum) for kernels, AdamW for all else.

    Muon needs a fraction of the samples that AdamW does. kernels, others : parameters of the model.
    both : the two optimisers.
    """

    def __init__(
        self, model: nn.Module, kernels: Sequence[nn.Parameter], config: RunConfig
    ) -> None:
        self.kernels = kernels
        known = {id(kernel) for kernel in kernels}
        self.others = [p for p in model.parameters() if id(p) not in known]
        # Muon needs matrices: the same numbers, one output channel per row.
        self._matrices = [nn.Parameter(kernel.detach().flatten(1)) for kernel in kernels]
        self.both: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                self._matrices,
                config.learning_rate,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(
                self.others,
                config.learning_rate,
                weight_decay=config.weight_decay,
                betas=(0.9, 0.98),
                fused=True,
            ),
        ]

    def take_gradients(self) -> None:
        """Give Muon the kernels' gradients."""
        for matrix, kernel in zip(self._matrices, self.kernels, strict=True):
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, ema: float, steps: int) -> None:
    """Move `average` towards `model`; to be called after each step. steps : their number so far.

    ema : share of the average that a step keeps, 0 to 1.
    """
    if steps % _AVERAGE_STEPS:
        return
    # A short memory at first, so that the average forgets the random start.
    keep = min(ema, steps / (steps + 10)) ** _AVERAGE_STEPS
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
