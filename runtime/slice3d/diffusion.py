"""Slice3D's latent diffusion: twelve slices sampled from one image.

The schedule is latent diffusion's: betas linear in their square roots, 1000 steps, and the network
predicts the noise. Sampling is DDIM (Song et al., ICLR 2021).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from xray_addon.slices.slicing import COUNT

from .unet import LATENT_CHANNELS, TILES, DiffusionConfig, ImageEncoder, SliceUNet, from_grid

TRAINING_STEPS = 1000
_BETAS = (0.0015, 0.0155)
# The first and the last of the published 200 steps.
_FIRST, _LAST = 1, 996
MOST_STEPS = 500


class SliceDiffusion(nn.Module):
    """The denoiser, the image encoder, the autoencoder of pictures, and the latents' scale."""

    scale: Tensor

    def __init__(self, config: DiffusionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DiffusionConfig()
        self.unet = SliceUNet(config)
        self.encoder = ImageEncoder(config)
        self.first_stage = make_first_stage(config)
        self.register_buffer("scale", torch.ones(()))

    def condition(self, images: Tensor, noise: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """The denoiser's conditioning: the latent and the features of images (B, 3, S, S) on white.

        noise (B, 4, t, t) : samples the latent as the published code does; None for its mean.
        """
        return self.encode(images, noise), self.encoder(images)

    def encode(self, pictures: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scaled latents (B, 4, t, t) of pictures (B, 3, S, S) in -1..1."""
        posterior = self.first_stage.encode(pictures).latent_dist
        latents = posterior.mean if noise is None else posterior.mean + posterior.std * noise
        return self.scale * latents

    def decode(self, grid: Tensor) -> Tensor:
        """Slices (B, 12, 3, S, S), about -1..1, of a grid of latents (B, 4, 4 t, 4 t)."""
        latents = from_grid(grid, COUNT) / self.scale
        # One at a time: for all twelve the last layers would need half a gigabyte.
        parts = [self.first_stage.decode(part).sample for part in latents.flatten(0, 1).split(1)]
        return torch.cat(parts).unflatten(0, (len(grid), COUNT))

    def sample(
        self,
        condition: tuple[Tensor, list[Tensor]],
        schedule: Schedule,
        noise: Callable[[int], Tensor],
        *,
        report: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Sample a grid of latents (B, 4, 4 t, 4 t) by DDIM.

        schedule : see `Schedule.of`.
        noise : returns unit noise of that shape for the start, -1, and for each step from 0 on.
        report : called with the number of finished steps and the predicted final grid; may raise to
        stop the sampling.
        """
        grid = noise(-1)
        schedule = schedule.to(grid.device)
        count = len(schedule.steps)
        for done, index in enumerate(reversed(range(count))):
            at = schedule.steps[index].expand(len(grid))
            predicted = self.unet(grid, at, *condition)
            alpha, before, sigma = (
                schedule.alphas[index],
                schedule.alphas_before[index],
                schedule.sigmas[index],
            )
            expected = (grid - (1 - alpha).sqrt() * predicted) / alpha.sqrt()
            grid = before.sqrt() * expected + (1 - before - sigma**2).sqrt() * predicted
            grid = grid + sigma * noise(done)
            if report is not None:
                report(done + 1, expected)
        return grid

    def grid_shape(self, batch: int = 1) -> tuple[int, int, int, int]:
        """(B, 4, 4 t, 4 t)."""
        side = TILES * self.config.tile
        return batch, LATENT_CHANNELS, side, side


def alphas_cumulated() -> Tensor:
    """(1000,) float64: the share of the picture left after each step of the diffusion."""
    low, high = (beta**0.5 for beta in _BETAS)
    betas = torch.linspace(low, high, TRAINING_STEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)


class Schedule:
    """The steps of a sampling, from the last diffusion step to the first.

    steps (n,) of the 1000, alphas, alphas_before and sigmas (n,) : float32.
    """

    def __init__(
        self, steps: Tensor, alphas: Tensor, alphas_before: Tensor, sigmas: Tensor
    ) -> None:
        self.steps = steps
        self.alphas = alphas
        self.alphas_before = alphas_before
        self.sigmas = sigmas

    @classmethod
    def of(cls, count: int) -> Schedule:
        """`count` steps, evenly spaced from the noisiest; the published ones for 200.

        The published code begins other counts at less noise, and with pure noise all the same.
        Raises ValueError unless `count` is 1 to `MOST_STEPS`.
        """
        if not 1 <= count <= MOST_STEPS:
            raise ValueError(f"steps must be 1 to {MOST_STEPS}, got {count}")
        spacing = (_LAST - _FIRST) / max(count - 1, 1)
        return cls.at(torch.tensor([round(_LAST - n * spacing) for n in reversed(range(count))]))

    @classmethod
    def at(cls, steps: Tensor) -> Schedule:
        """Increasing steps (n,) of the 1000, with as much noise as DDPM adds (eta 1)."""
        # The published code rounds the products to single precision before using them.
        alphas_all = alphas_cumulated().float().double()
        alphas = alphas_all[steps]
        before = torch.cat([alphas_all[:1], alphas[:-1]])
        sigmas = ((1 - before) / (1 - alphas) * (1 - alphas / before)).sqrt()
        return cls(steps, alphas.float(), before.float(), sigmas.float())

    def to(self, device: torch.device) -> Schedule:
        """The same on `device`."""
        return Schedule(
            self.steps.to(device),
            self.alphas.to(device),
            self.alphas_before.to(device),
            self.sigmas.to(device),
        )


def make_first_stage(config: DiffusionConfig) -> AutoencoderKL:
    """The autoencoder that latent diffusion calls kl-f8."""
    levels = len(config.first_stage)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.first_stage,
        layers_per_block=2,
        latent_channels=LATENT_CHANNELS,
        sample_size=config.image_size,
    )


def first_stage_name(published: str) -> str:
    """The name in diffusers of a parameter of the published autoencoder."""
    name = published
    for old, new in (
        ("mid.block_1.", "mid_block.resnets.0."),
        ("mid.block_2.", "mid_block.resnets.1."),
        ("mid.attn_1.norm.", "mid_block.attentions.0.group_norm."),
        ("mid.attn_1.proj_out.", "mid_block.attentions.0.to_out.0."),
        ("mid.attn_1.q.", "mid_block.attentions.0.to_q."),
        ("mid.attn_1.k.", "mid_block.attentions.0.to_k."),
        ("mid.attn_1.v.", "mid_block.attentions.0.to_v."),
        ("norm_out.", "conv_norm_out."),
        ("nin_shortcut.", "conv_shortcut."),
        (".downsample.", ".downsamplers.0."),
        (".upsample.", ".upsamplers.0."),
        (".block.", ".resnets."),
        ("encoder.down.", "encoder.down_blocks."),
    ):
        name = name.replace(old, new)
    if name.startswith("decoder.up."):
        _, _, level, rest = name.split(".", 3)
        name = f"decoder.up_blocks.{3 - int(level)}.{rest}"
    return name
