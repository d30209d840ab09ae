"""The noise schedule of the diffusion: the rest of the picture after each of 1,000 steps.

Cosine schedule (Nichol and Dhariwal 2021) and the weights of min-SNR (Hang et al. 2023), both for
a network that predicts the clean picture.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from xray_addon.systems.renderdiffusion import NOISE_STEPS

_OFFSET = 0.008  # keeps the noise of the first steps from vanishing
_LARGEST_BETA = 0.999


def _signal() -> Tensor:
    """The picture's share of the variance (1001,); 1 after 0 steps."""
    share = torch.arange(NOISE_STEPS + 1, dtype=torch.float64) / NOISE_STEPS
    curve = torch.cos((share + _OFFSET) / (1 + _OFFSET) * math.pi / 2).square()
    kept = (curve[1:] / curve[:-1]).clamp(min=1 - _LARGEST_BETA)
    return torch.cat([torch.ones(1, dtype=torch.float64), kept.cumprod(dim=0)])


SIGNAL = _signal()


def amounts(time: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of picture and noise (B, 1, 1, 1) after steps `time` (B,), 0 to 1000."""
    signal = SIGNAL.to(time.device)[time.long()].float()[:, None, None, None]
    return signal.sqrt(), (1 - signal).sqrt()


def noised(clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Pictures (B, 3, S, S) after steps `time` (B,) of noise."""
    kept, added = amounts(time)
    return kept * clean + added * noise


def noise_in(noisy: Tensor, clean: Tensor, time: Tensor) -> Tensor:
    """The noise that turned `clean` into `noisy`; `time` (B,) is 1 or more."""
    kept, added = amounts(time)
    return (noisy - kept * clean) / added


def loss_weight(time: Tensor, most: float) -> Tensor:
    """Weights (B,) of the squared error of the clean picture: min(SNR, most) / most."""
    signal = SIGNAL.to(time.device)[time.long()].float()
    return (signal / (1 - signal).clamp(min=1e-8)).clamp(max=most) / most


def sampling_times(first: int, steps: int) -> list[int]:
    """At most `steps` times, evenly spaced from `first` down to 1; 0 follows the last."""
    count = min(steps, first)
    return [first - (first * number) // count for number in range(count)]
