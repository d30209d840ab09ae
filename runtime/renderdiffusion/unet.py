"""The encoder: a time-conditioned 2D U-Net from a noisy picture to three feature planes.

Pixels are folded into channels (pixel unshuffle), so that most of the work is large matrix products
at few pixels, which CPUs do fastest. The planes are in the object's frame, not in the picture's:
the attention at the coarsest grid moves features to their place in it.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..torch_helpers.attention import TIME_FEATURES, attend, time_features
from ..torch_helpers.parameters import normal_parameter

GROUPS = 8  # of the group normalisation
HEAD_CHANNELS = 32


class Block(nn.Module):
    """A residual block of two convolutions, conditioned on the time; it starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.time = nn.Linear(TIME_FEATURES, channels)
        self.norm2 = nn.GroupNorm(GROUPS, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, signal: Tensor) -> Tensor:
        """x (B, C, H, W); signal (B, `TIME_FEATURES`)."""
        hidden = self.conv1(functional.silu(self.norm1(x)))
        hidden = hidden + self.time(signal)[:, :, None, None]
        return x + self.conv2(functional.silu(self.norm2(hidden)))


class Attention(nn.Module):
    """Residual self-attention between all pixels; it starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = channels // HEAD_CHANNELS
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.to_out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.to_out.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W)."""
        return x + self.to_out(attend(self.to_qkv(self.norm(x)), self.heads))


class UNet(nn.Module):
    """(B, in, S, S) and times (B,) to (B, out, S, S).

    size : S that the learned places are made for; at another S they are interpolated.
    channels, blocks : of each level, from the finest on, which has S / fold pixels a side. The
    coarsest has its blocks once, each after an attention; the others on the way down and up.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        size: int,
        channels: tuple[int, ...],
        blocks: tuple[int, ...],
        fold: int,
    ) -> None:
        super().__init__()
        self.fold = fold
        sizes = [size // fold // 2**level for level in range(len(channels))]
        self.places = nn.ParameterList(
            normal_parameter(1, c, n, n, std=0.02) for c, n in zip(channels, sizes, strict=True)
        )
        self.conv_in = nn.Conv2d(inputs * fold**2, channels[0], 3, padding=1)
        fine, coarse = list(zip(channels, blocks, strict=True))[:-1], channels[-1]
        steps = list(itertools.pairwise(channels))
        self.down = nn.ModuleList(nn.ModuleList(Block(c) for _ in range(n)) for c, n in fine)
        self.shrink = nn.ModuleList(nn.Conv2d(4 * a, b, 1) for a, b in steps)
        self.middle = nn.ModuleList(
            nn.ModuleList([Attention(coarse), Block(coarse)]) for _ in range(blocks[-1])
        )
        self.grow = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in steps)
        self.skip = nn.ModuleList(nn.Conv2d(a, a, 1) for a, _ in steps)
        self.up = nn.ModuleList(nn.ModuleList(Block(c) for _ in range(n)) for c, n in fine)
        self.norm_out = nn.GroupNorm(GROUPS, channels[0])
        self.conv_out = nn.Conv2d(channels[0], outputs * fold**2, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """See the class; time : steps of noise, 0 (none) to 1000."""
        dtype = self.conv_in.weight.dtype
        signal = time_features(time).to(dtype)
        x = functional.pixel_unshuffle(x.to(dtype), self.fold)
        x = self.conv_in(x.contiguous(memory_format=torch.channels_last))
        kept = []
        for level, down in enumerate(self.down):
            x = x + self._place(level, x)
            for block in down:
                x = block(x, signal)
            kept.append(x)
            x = self.shrink[level](functional.pixel_unshuffle(x, 2))
        x = x + self._place(-1, x)
        for attention, block in self.middle:
            x = block(attention(x), signal)
        for level in reversed(range(len(self.up))):
            x = functional.pixel_shuffle(self.grow[level](x), 2) + self.skip[level](kept[level])
            for block in self.up[level]:
                x = block(x, signal)
        x = self.conv_out(functional.silu(self.norm_out(x)))
        return functional.pixel_shuffle(x, self.fold)

    def _place(self, level: int, x: Tensor) -> Tensor:
        place = self.places[level]
        if place.shape[-2:] == x.shape[-2:]:
            return place
        resized = functional.interpolate(
            place.float(), x.shape[-2:], mode="bilinear", align_corners=False
        )
        return resized.to(place.dtype)
