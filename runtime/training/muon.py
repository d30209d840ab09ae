"""Optimisers for networks of a few large matrix products, and the average of their weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .configs import RunConfig

_AVERAGE_STEPS = 4  # between two updates of the averaged weights


class Optimizers:
    """Muon (Jordan et al. 2024: orthogonalised momentum) for kernels, AdamW for all else.

    Muon needs a fraction of the samples that AdamW does. kernels, others : parameters of the model.
    both : the two optimisers. dtype : in which Muon multiplies, bfloat16 or float32.
    """

    def __init__(
        self,
        model: nn.Module,
        kernels: Sequence[nn.Parameter],
        config: RunConfig,
        dtype: torch.dtype,
    ) -> None:
        self.kernels = kernels
        known = {id(kernel) for kernel in kernels}
        self.others = [p for p in model.parameters() if id(p) not in known]
        # Muon needs matrices: the same numbers, one output channel per row.
        self._matrices = [nn.Parameter(kernel.detach().flatten(1)) for kernel in kernels]
        muon = torch.optim.Muon if dtype == torch.bfloat16 else _SingleMuon
        self.both: list[torch.optim.Optimizer] = [
            muon(
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


class _SingleMuon(torch.optim.Muon):
    """`torch.optim.Muon` in float32; the library's own always multiplies in bfloat16."""

    @torch.no_grad()
    def step(self, _closure: object = None) -> None:
        """One step with the current gradients."""
        for group in self.param_groups:
            rate = group["lr"]
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                momentum = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
                update = matrix.grad.lerp(momentum, group["momentum"])
                update = _orthogonal(update, group["ns_coefficients"], group["ns_steps"])
                matrix.mul_(1 - rate * group["weight_decay"])
                matrix.add_(update, alpha=-0.2 * math.sqrt(max(matrix.shape)) * rate)


def _orthogonal(matrix: Tensor, coefficients: tuple[float, float, float], rounds: int) -> Tensor:
    """`matrix` with all singular values near 1, by the Newton-Schulz iteration of Muon."""
    linear, cubic, quintic = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    wide = matrix.T if tall else matrix
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(rounds):
        gram = wide @ wide.T
        wide = torch.addmm(
            wide, torch.addmm(gram, gram, gram, beta=cubic, alpha=quintic), wide, beta=linear
        )
    return wide.T if tall else wide


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
