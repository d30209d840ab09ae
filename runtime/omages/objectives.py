"""The training losses of the two networks."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .sampling import Schedule, material_log_snr
from .transformer import CHANNELS, GeometryTransformer
from .unet import MaterialNetwork

DROPPED_LABELS = 0.1  # share of samples without their label
MOST_SNR = 5.0  # at which a step's weight is clipped (arXiv 2303.09556)


class GeometryObjective:
    """Squared error for the noise, variational bound for the variance (arXiv 2102.09672)."""

    def __init__(self, schedule: Schedule) -> None:
        alpha = torch.from_numpy(schedule.alpha[::-1].copy())  # from clean to noisy
        sigma = torch.from_numpy(schedule.sigma[::-1].copy())
        before, here = alpha[:-1], alpha[1:]
        self.anew = 1 - (here / before) ** 2  # the schedule's betas
        self.alpha, self.sigma = here, sigma[1:]
        posterior = self.anew * (sigma[:-1] / sigma[1:]) ** 2
        posterior[0] = posterior[1]  # the first is 0
        self.least, self.most = posterior.log(), self.anew.log()
        self.from_clean = before * self.anew / sigma[1:] ** 2
        self.from_noisy = here / before * sigma[:-1] ** 2 / sigma[1:] ** 2

    def losses(
        self, network: GeometryTransformer, clean: Tensor, label: Tensor, random: torch.Generator
    ) -> dict[str, Tensor]:
        """The losses, by name, for geometry (B, 4, S, S) with labels (B,)."""
        count = len(clean)
        step = torch.randint(len(self.alpha), (count,), generator=random)
        noise = torch.randn(clean.shape, generator=random).to(clean.device)
        dropped = torch.rand(count, generator=random) < DROPPED_LABELS
        label = torch.where(dropped.to(label.device), network.config.classes, label)

        def at(table: Tensor) -> Tensor:
            return table[step].float().to(clean.device)[:, None, None, None]

        noisy = at(self.alpha) * clean + at(self.sigma) * noise
        out = network(noisy, step.to(clean.device), label).float()
        guessed, share = out.split(CHANNELS, dim=1)
        least, most = at(self.least), at(self.most)
        log_variance = (share + 1) / 2 * (most - least) + least
        # The bound trains only the variance.
        start = ((noisy - at(self.sigma) * guessed.detach()) / at(self.alpha)).clamp(-1, 1)
        mean = at(self.from_clean) * start + at(self.from_noisy) * noisy
        wanted = at(self.from_clean) * clean + at(self.from_noisy) * noisy
        bound = _divergence(wanted, least, mean, log_variance).flatten(1).mean(1)
        first = -_log_likelihood(clean, mean, log_variance / 2).flatten(1).mean(1)
        bound = torch.where((step == 0).to(clean.device), first, bound) / math.log(2)
        return {"noise": functional.mse_loss(guessed, noise), "bound": bound.mean()}


class MaterialObjective:
    """Squared error of velocities, weighted by the signal-to-noise ratio."""

    def losses(
        self, network: MaterialNetwork, omage: Tensor, label: Tensor, random: torch.Generator
    ) -> dict[str, Tensor]:
        """The losses, by name, for omages (B, 12, S, S) with labels (B,)."""
        geometry, clean = omage[:, :4], omage[:, 7:]
        count = len(clean)
        time = torch.rand(count, generator=random).double().numpy()
        noise = torch.randn(clean.shape, generator=random).to(clean.device)
        keep = torch.rand(count, generator=random) >= DROPPED_LABELS
        known = label < network.config.classes
        log_snr = torch.from_numpy(material_log_snr(time).astype(np.float32)).to(clean.device)
        alpha, sigma = ((sign * log_snr).sigmoid().sqrt()[:, None, None, None] for sign in (1, -1))
        encoded = network.encode(torch.where(known, label, 0), keep.to(label.device) & known)
        guessed = network(alpha * clean + sigma * noise, log_snr, geometry, encoded).float()
        error = (guessed - (alpha * noise - sigma * clean)).square().flatten(1).mean(1)
        ratio = log_snr.exp()
        return {"velocity": (error * ratio.clamp(max=MOST_SNR) / (ratio + 1)).mean()}


def _divergence(mean: Tensor, log_variance: Tensor, other: Tensor, other_log: Tensor) -> Tensor:
    """Kullback-Leibler divergence of two normal distributions, in nats."""
    ratio = torch.exp(log_variance - other_log) + (mean - other) ** 2 * torch.exp(-other_log)
    return 0.5 * (other_log - log_variance - 1 + ratio)


def _log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-likelihood of values -1 to 1 in steps of 2 / 255, if normally distributed, in nats."""
    inverse = torch.exp(-log_scale)
    above = _normal((x - mean + 1 / 255) * inverse)
    below = _normal((x - mean - 1 / 255) * inverse)
    share = torch.where(x < -0.999, above, torch.where(x > 0.999, 1 - below, above - below))
    return share.clamp(min=1e-12).log()


def _normal(x: Tensor) -> Tensor:
    """The normal distribution function at x, by the published approximation."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
