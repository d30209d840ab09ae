"""Samplers from noise to images: the published ancestral one, and a solver with fewer steps.

At each step an image is alpha * clean + sigma * noise, with alpha**2 + sigma**2 = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]

DIFFUSION_STEPS = 1000  # in the training of the geometry network
LARGEST_BETA = 0.999


@dataclass(frozen=True, eq=False)
class Schedule:
    """From noise to clean images in N steps.

    times : (N,) the network's time input for each step: a time step of `DIFFUSION_STEPS`, or a
        log signal-to-noise ratio. alpha, sigma : (N + 1,), the last for the result.
    """

    times: Floats
    alpha: Floats
    sigma: Floats

    @property
    def steps(self) -> int:
        """The number of steps, N."""
        return len(self.times)

    @classmethod
    def geometry(cls, steps: int = DIFFUSION_STEPS) -> Schedule:
        """A cosine of variances (Nichol and Dhariwal, arXiv 2102.09672), evenly respaced.

        A single step is the noisiest.
        """
        edges = np.arange(DIFFUSION_STEPS + 1) / DIFFUSION_STEPS
        share = np.cos((edges + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - share[1:] / share[:-1], LARGEST_BETA)
        retained = np.cumprod(1 - betas)
        spacing = (DIFFUSION_STEPS - 1) / max(steps - 1, 1)
        # Python rounds halves to even, as the published code does.
        times = np.array([round(number * spacing) for number in range(steps)])[::-1]
        times[0] = DIFFUSION_STEPS - 1
        chosen = np.append(retained[times], 1.0)
        return cls(times.astype(np.float64), np.sqrt(chosen), np.sqrt(1 - chosen))

    @classmethod
    def material(cls, steps: int = 1000) -> Schedule:
        """A cosine in continuous time (Ho and Salimans, arXiv 2207.12598), evenly spaced."""
        log_snr = material_log_snr(np.linspace(1.0, 0.0, steps + 1))
        alpha, sigma = (np.sqrt(1 / (1 + np.exp(-sign * log_snr))) for sign in (1, -1))
        return cls(log_snr[:-1], alpha, sigma)


def material_log_snr(time: Floats) -> Floats:
    """The log signal-to-noise ratio at times from 0 (clean) to 1 (noise).

    In single precision, as published: at 1 the cosine consists only of its rounding error.
    """
    angle = (time.astype(np.float32) + np.float32(0.008)) / np.float32(1.008)
    cosine = np.cos(angle * np.float32(np.pi) * np.float32(0.5))
    ratio = np.maximum(cosine**-2 - np.float32(1), np.float32(1e-5))
    return -np.log(ratio).astype(np.float64)


class Denoiser(Protocol):
    """A network with its conditioning."""

    schedule: Schedule

    def clean(self, x: Tensor, step: int) -> tuple[Tensor, Tensor | None]:
        """The clean image predicted from `x` (B, C, S, S), and the variance in its range.

        The latter (B, C, S, S) goes from -1, the smallest variance, to 1, the largest; None for the
        smallest.
        """
        ...


# Returns noise (B, C, S, S) for a step's number.
Draw = Callable[[int], Tensor]


def ancestral(x: Tensor, denoiser: Denoiser, draw: Draw) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields each step's image and predicted clean image, starting with noise (B, C, S, S).

    Samples the posterior given the denoiser's clean image (arXiv 2006.11239), with fresh noise in
    all steps but the last.
    """
    schedule = denoiser.schedule
    alpha, sigma = schedule.alpha, schedule.sigma
    for step in range(schedule.steps):
        clean, share = denoiser.clean(x, step)
        here, there = alpha[step], alpha[step + 1]
        anew = 1 - (here * sigma[step + 1] / (there * sigma[step])) ** 2
        x = there * ((1 - anew) / here * x + anew * clean)
        if step + 1 < schedule.steps:
            least = np.log(max(sigma[step + 1] ** 2 * anew, 1e-20))
            log_variance: Tensor | float = least
            if share is not None:
                most = np.log(1 - (here / there) ** 2)
                log_variance = (share + 1) / 2 * (most - least) + least
            x = x + torch.exp(0.5 * torch.as_tensor(log_variance, device=x.device)) * draw(step)
        yield x, clean


def multistep(x: Tensor, denoiser: Denoiser) -> Iterator[tuple[Tensor, Tensor]]:
    """Like `ancestral`, without noise and in fewer steps (DPM-Solver++ 2M, arXiv 2211.01095)."""
    schedule = denoiser.schedule
    alpha, sigma = schedule.alpha, schedule.sigma
    half_log_snr = np.log(alpha) - np.log(np.maximum(sigma, 1e-10))
    before: Tensor | None = None
    for step in range(schedule.steps):
        clean, _ = denoiser.clean(x, step)
        stride = half_log_snr[step + 1] - half_log_snr[step]
        target = clean
        if before is not None and step + 1 < schedule.steps:
            ratio = (half_log_snr[step] - half_log_snr[step - 1]) / stride
            target = clean + (clean - before) / (2 * ratio)
        x = sigma[step + 1] / sigma[step] * x - alpha[step + 1] * np.expm1(-stride) * target
        before = clean
        yield x, clean
