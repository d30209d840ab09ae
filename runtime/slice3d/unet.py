"""The denoiser of Slice3D's latent diffusion, and the image encoder that conditions it.

A U-Net as in latent diffusion (Rombach et al., CVPR 2022) over the latents of twelve slices, which
are side by side in a grid of 4 x 4 tiles. The image is used twice: its latent is concatenated to
every tile, and VGG features of five depths are added in the encoder. Parameters have their
published names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .vgg import features, vgg16_stages

TILES = 4  # along each side of the grid
LATENT_CHANNELS = 4
# Image pixels per latent pixel, along a side.
LATENT_STRIDE = 8
# The input blocks after which features of the image are added.
_ADDED_AFTER = (0, 4, 7, 10, 12)
_BLOCKS = 2  # residual blocks per level


@dataclass(frozen=True)
class DiffusionConfig:
    """The configuration of the latent diffusion. The defaults are the published ones.

    channels, multipliers, heads : of the U-Net, whose five levels have channels * multiplier.
    vgg_channels : of the image encoder. first_stage : channels of the autoencoder's levels.
    """

    image_size: int = 128
    channels: int = 192
    multipliers: tuple[int, ...] = (1, 2, 2, 4, 4)
    heads: int = 8
    vgg_channels: tuple[int, ...] = (64, 128, 256, 512, 512)
    first_stage: tuple[int, ...] = (128, 256, 512, 512)

    def __post_init__(self) -> None:
        if self.image_size not in (32, 64) and (self.image_size < 1 or self.image_size % 128):
            raise ValueError(
                f"image_size must be 32, 64 or a multiple of 128, got {self.image_size}"
            )
        if len(self.multipliers) != 5 or len(self.vgg_channels) != 5:
            raise ValueError("multipliers and vgg_channels must be five numbers each")
        if len(self.first_stage) != 4:
            raise ValueError("first_stage must be four numbers")
        if self.channels % 32 or self.channels % self.heads:
            raise ValueError("channels must be a multiple of 32 and of heads")
        if self.image_size == 32 and self.channels * min(self.multipliers[3:]) < 64:
            # Only one pixel is left there, and each of 32 groups needs more than one value.
            raise ValueError("at image_size 32 the last two levels need 64 channels or more")

    @property
    def tile(self) -> int:
        """Pixels per side of one latent."""
        return self.image_size // LATENT_STRIDE

    @property
    def added_channels(self) -> tuple[int, ...]:
        """Channels of the features added to the U-Net, by depth."""
        one, two, three, four, _ = (self.channels * factor for factor in self.multipliers)
        return one, two, three, four, four


class ImageEncoder(nn.Module):
    """VGG features of the image for the U-Net's five depths."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self._sizes = [max(config.tile >> depth, 1) for depth in range(5)]
        stages = vgg16_stages(config.vgg_channels)
        self.conv1_2, self.conv2_2, self.conv3_3, self.conv4_3, self.conv5_3 = stages
        self.trans1_2, self.trans2_2, self.trans3_3, self.trans4_3, self.trans5_3 = (
            nn.Conv2d(before, after, 1)
            for before, after in zip(config.vgg_channels, config.added_channels, strict=True)
        )
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features (B, C, s, s), for one tile each, of images (B, 3, S, S) in -1..1 on white."""
        normed = ((images + 1) / 2 - self.mean) / self.std
        stages = (self.conv1_2, self.conv2_2, self.conv3_3, self.conv4_3, self.conv5_3)
        projections = (self.trans1_2, self.trans2_2, self.trans3_3, self.trans4_3, self.trans5_3)
        return [
            functional.interpolate(projection(found), size=size)
            for projection, found, size in zip(
                projections, features(stages, normed), self._sizes, strict=True
            )
        ]


class SliceUNet(nn.Module):
    """Predicts the noise in a grid of latents."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        width = config.channels
        self.time_embed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width)
        )
        current = width
        skips = [width]
        self.input_blocks = nn.ModuleList(
            [nn.ModuleList([nn.Conv2d(2 * LATENT_CHANNELS, width, 3, padding=1)])]
        )
        for level, factor in enumerate(config.multipliers):
            for _ in range(_BLOCKS):
                self.input_blocks.append(self._block(current, width * factor))
                current = width * factor
                # The last level has no attention: the published one ends at an eighth of the size.
                if level < len(config.multipliers) - 1:
                    self._add_attention(self.input_blocks[-1], current)
                skips.append(current)
            if level < len(config.multipliers) - 1:
                self.input_blocks.append(self._block(current, current, "down"))
                skips.append(current)
        self.middle_block = nn.ModuleList(
            [
                _ResBlock(current, current, 4 * width),
                _Attention(current, config.heads),
                _ResBlock(current, current, 4 * width),
            ]
        )
        self.output_blocks = nn.ModuleList()
        for level, factor in reversed(list(enumerate(config.multipliers))):
            for number in range(_BLOCKS + 1):
                block = self._block(current + skips.pop(), width * factor)
                current = width * factor
                if level < len(config.multipliers) - 1:
                    self._add_attention(block, current)
                if level and number == _BLOCKS:
                    block.append(_ResBlock(current, current, 4 * width, "up"))
                self.output_blocks.append(block)
        self.out = nn.Sequential(
            nn.GroupNorm(32, current),
            nn.SiLU(),
            _zeroed(nn.Conv2d(width, LATENT_CHANNELS, 3, padding=1)),
        )

    def _block(self, before: int, after: int, resample: str = "") -> nn.ModuleList:
        return nn.ModuleList([_ResBlock(before, after, 4 * self.config.channels, resample)])

    def _add_attention(self, block: Any, channels: int) -> None:
        block.append(_Attention(channels, self.config.heads))

    def forward(
        self, grid: Tensor, steps: Tensor, latent: Tensor, added: Sequence[Tensor]
    ) -> Tensor:
        """The noise (B, 4, G, G) in `grid`, at diffusion steps (B,), 0 to 999.

        latent (B, 4, t, t) : of the image. added : from `ImageEncoder`.
        """
        time = self.time_embed(step_embedding(steps, self.config.channels))
        current = torch.cat([grid, _tiled_like(latent, grid)], dim=1)
        places = dict(zip(_ADDED_AFTER, added, strict=True))
        skips = []
        for number, block in enumerate(self.input_blocks):
            current = _apply(block, current, time)
            if number in places:
                current = current + _tiled_like(places[number], current)
            skips.append(current)
        current = _apply(self.middle_block, current, time)
        for block in self.output_blocks:
            current = _apply(block, torch.cat([current, skips.pop()], dim=1), time)
        return self.out(current)


def step_embedding(steps: Tensor, width: int) -> Tensor:
    """Cosines and sines (B, width) of diffusion steps (B,)."""
    half = width // 2
    place = torch.arange(half, dtype=torch.float32, device=steps.device)
    angle = steps[:, None].float() * torch.exp(-math.log(10_000) * place / half)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def to_grid(latents: Tensor) -> Tensor:
    """(B, C, 4 t, 4 t) of latents (B, 12, C, t, t): rows X, Z and Y, and a last row of zeros."""
    batch, count, channels, tile, _ = latents.shape
    empty = latents.new_zeros(batch, TILES * TILES - count, channels, tile, tile)
    tiles = torch.cat([latents, empty], dim=1).unflatten(1, (TILES, TILES))
    return tiles.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, TILES * tile, TILES * tile)


def from_grid(grid: Tensor, count: int = 12) -> Tensor:
    """The inverse of `to_grid`."""
    batch, channels, side, _ = grid.shape
    tile = side // TILES
    tiles = grid.view(batch, channels, TILES, tile, TILES, tile).permute(0, 2, 4, 1, 3, 5)
    return tiles.reshape(batch, TILES * TILES, channels, tile, tile)[:, :count]


class _ResBlock(nn.Module):
    def __init__(self, before: int, after: int, time: int, resample: str = "") -> None:
        super().__init__()
        self._resample = resample
        self.in_layers = nn.Sequential(
            nn.GroupNorm(32, before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time, 2 * after))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, after),
            nn.SiLU(),
            nn.Identity(),  # in place of the published code's dropout of 0
            _zeroed(nn.Conv2d(after, after, 3, padding=1)),
        )
        self.skip_connection = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        hidden = self._resampled(self.in_layers[:2](x))
        hidden = self.in_layers[2](hidden)
        scale, shift = self.emb_layers(time)[:, :, None, None].chunk(2, dim=1)
        hidden = self.out_layers[0](hidden) * (1 + scale) + shift
        return self.skip_connection(self._resampled(x)) + self.out_layers[1:](hidden)

    def _resampled(self, x: Tensor) -> Tensor:
        if self._resample == "up":
            return functional.interpolate(x, scale_factor=2, mode="nearest")
        return functional.avg_pool2d(x, 2) if self._resample == "down" else x


class _Attention(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.norm = nn.GroupNorm(32, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = _zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        # The order is head, then query, key and value.
        parts = self.qkv(self.norm(flat)).unflatten(1, (self._heads, 3, -1)).transpose(-1, -2)
        query, key, value = (part.contiguous() for part in parts.unbind(2))
        attended = functional.scaled_dot_product_attention(query, key, value)
        return (flat + self.proj_out(attended.transpose(-1, -2).flatten(1, 2))).view_as(x)


def _apply(block: Any, x: Tensor, time: Tensor) -> Tensor:
    for layer in block:
        x = layer(x, time) if isinstance(layer, _ResBlock) else layer(x)
    return x


def _tiled_like(values: Tensor, grid: Tensor) -> Tensor:
    """`values` (B, C, s, s) repeated to the size of `grid` (B, C, G, G)."""
    # In a small picture's deepest levels a pixel belongs to several tiles, so fewer repeats fit.
    times = grid.shape[-1] // values.shape[-1]
    return values.repeat(1, 1, times, times)


def _zeroed(layer: Any) -> Any:
    """Initialise a layer to return zeros."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
