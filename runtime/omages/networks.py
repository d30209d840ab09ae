"""The two networks as denoisers for `sampling`."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from .sampling import Schedule
from .transformer import CHANNELS, GeometryTransformer
from .unet import MaterialNetwork

GUIDANCE = 4.0  # for the published samples
THRESHOLD_SHARE = 0.95  # of the pixels that dynamic thresholding leaves unchanged


class GeometryDenoiser:
    """Denoises geometry by category: positions and occupancy from -1 to 1.

    label : (B,) category numbers. guidance : scale of classifier-free guidance; 1 for none.
    """

    def __init__(
        self,
        network: GeometryTransformer,
        schedule: Schedule,
        label: Tensor,
        guidance: float = GUIDANCE,
    ) -> None:
        self.network = network
        self.schedule = schedule
        self.label = label
        self.guidance = guidance

    def clean(self, x: Tensor, step: int) -> tuple[Tensor, Tensor | None]:
        """See `sampling.Denoiser`."""
        label, images = self.label, x
        if self.guidance != 1:
            label = torch.cat([label, torch.full_like(label, self.network.config.classes)])
            images = torch.cat([x, x])
        time = torch.full((len(images),), self.schedule.times[step], device=x.device)
        with _precision(x):
            out = self.network(images, time, label).float()
        noise, share = out.split(CHANNELS, dim=1)
        if self.guidance != 1:
            with_category, without = noise.chunk(2)
            noise = without + self.guidance * (with_category - without)
            share = share[: len(x)]
        alpha, sigma = self.schedule.alpha[step], self.schedule.sigma[step]
        return ((x - sigma * noise) / alpha).clamp(-1, 1), share


class MaterialDenoiser:
    """Denoises materials for geometry (B, 4, S, S): albedo, metallic and roughness from -1 to 1."""

    def __init__(
        self, network: MaterialNetwork, schedule: Schedule, geometry: Tensor, label: Tensor
    ) -> None:
        self.network = network
        self.schedule = schedule
        self.geometry = geometry
        with _precision(geometry):
            self.label = network.encode(label)

    def clean(self, x: Tensor, step: int) -> tuple[Tensor, Tensor | None]:
        """See `sampling.Denoiser`."""
        log_snr = torch.full(
            (len(x),), self.schedule.times[step], dtype=torch.float32, device=x.device
        )
        with _precision(x):
            velocity = self.network(x, log_snr, self.geometry, self.label).float()
        alpha, sigma = self.schedule.alpha[step], self.schedule.sigma[step]
        return _thresholded(alpha * x - sigma * velocity), None


def _thresholded(x: Tensor) -> Tensor:
    """`x` within -1 to 1, scaled down if many pixels are outside (arXiv 2205.11487)."""
    bound = x.flatten(1).abs().quantile(THRESHOLD_SHARE, dim=1).clamp(min=1)[:, None, None, None]
    return x.clamp(-bound, bound) / bound


def _precision(x: Tensor) -> Any:
    """Autocast to half precision on a graphics card."""
    return torch.autocast("cuda", torch.float16) if x.device.type == "cuda" else nullcontext()
