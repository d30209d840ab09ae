"""The material network: a U-Net that predicts velocities in an image of materials.

It is the first stage of Imagen (Saharia et al., arXiv 2205.11487) as in imagen-pytorch 1.26, the
source of the published weights. A label replaces the text, and the geometry is added to the noisy
image. Parameters have their published names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from xray_addon.omage.categories import CATEGORIES

from .attention import CrossAttention, ImageTransformer, Resampler

CHANNELS = 5  # albedo, metallic, roughness
GEOMETRY_CHANNELS = 4
GROUPS = 8
KERNELS = (3, 7, 15)  # of the first convolutions
MIDDLE_HEADS = 8  # of the cross-attention in the middle, whatever the other layers have
TIME_TOKENS = 2
TIME_WAVES = 8
TEXT_LENGTH = 256
LABEL_CHANNELS = 768


@dataclass(frozen=True)
class UNetConfig:
    """The network's configuration. The defaults are the published ones.

    channels : of the first level. factors : of the channels at each level's end. blocks : residual
    blocks per level after the first one. attention : levels with attention. heads : of the
    attention.
    """

    channels: int = 256
    factors: tuple[int, ...] = (1, 2, 3, 4)
    blocks: int = 3
    attention: tuple[bool, ...] = (False, True, True, True)
    heads: int = 8
    classes: int = len(CATEGORIES)

    def __post_init__(self) -> None:
        if len(self.factors) != len(self.attention) or len(self.factors) < 1:
            raise ValueError("factors and attention must have one entry a level")
        if self.channels < GROUPS or self.channels % GROUPS:
            raise ValueError(f"channels must be a multiple of {GROUPS}, got {self.channels}")
        if min(*self.factors, self.blocks, self.heads, self.classes) < 1:
            raise ValueError("sizes of a network must be 1 or more")

    @property
    def levels(self) -> list[tuple[int, int, bool]]:
        """Input channels, output channels and whether it has attention, for each level."""
        widths = [self.channels, *(self.channels * factor for factor in self.factors)]
        return list(zip(widths[:-1], widths[1:], self.attention, strict=True))


class MaterialNetwork(nn.Module):
    """The U-Net and its label embedding, as in the published checkpoint."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.unets = UNet(config)
        self.label_embedder = nn.Embedding(config.classes, LABEL_CHANNELS)

    def encode(self, label: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode labels (B,) for `forward`: tokens (B, M, C) and a vector (B, 4 * C).

        keep : (B,) whether to use the label; by default all.
        """
        if keep is None:
            keep = torch.ones_like(label, dtype=torch.bool)
        return self.unets.encode(self.label_embedder(label), keep)

    def forward(
        self, x: Tensor, log_snr: Tensor, geometry: Tensor, label: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Velocities (B, 5, S, S) from noisy materials (B, 5, S, S) and geometry (B, 4, S, S).

        log_snr : (B,). label : from `encode`.
        """
        return self.unets(x, log_snr, geometry, label)


class UNet(nn.Module):
    """See `MaterialNetwork`."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        width = config.channels
        time = 4 * width
        self.null_text_embed = nn.Parameter(torch.randn(1, TEXT_LENGTH, width))
        self.null_text_hidden = nn.Parameter(torch.randn(1, time))
        self.init_conv = MultiKernel(CHANNELS + GEOMETRY_CHANNELS, width)
        self.to_time_hiddens = nn.Sequential(
            Waves(), nn.Linear(2 * TIME_WAVES + 1, time), nn.SiLU()
        )
        self.to_time_cond = nn.Sequential(nn.Linear(time, time))
        self.to_time_tokens = nn.Sequential(nn.Linear(time, TIME_TOKENS * width))
        self.norm_cond = nn.LayerNorm(width)
        self.text_to_cond = nn.Linear(LABEL_CHANNELS, width)
        self.attn_pool = Resampler(width, config.heads)
        self.to_text_non_attn_cond = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time)
        )
        last = len(config.levels) - 1
        self.downs = nn.ModuleList(
            Down(*level, config, last=number == last) for number, level in enumerate(config.levels)
        )
        deepest = config.levels[-1][1]
        self.mid_block1 = ResidualBlock(deepest, deepest, time, width, MIDDLE_HEADS)
        self.mid_attn = ImageTransformer(deepest, config.heads)
        self.mid_block2 = ResidualBlock(deepest, deepest, time, width, MIDDLE_HEADS)
        self.ups = nn.ModuleList(
            Up(*level, config, last=number == last)
            for number, level in enumerate(reversed(config.levels))
        )
        self.final_res_block = ResidualBlock(2 * width, width, time, gated=True)
        self.final_conv = nn.Conv2d(width, CHANNELS, 3, padding=1)
        nn.init.zeros_(self.final_conv.weight)
        nn.init.zeros_(self.final_conv.bias)

    def encode(self, embedding: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """See `MaterialNetwork.encode`; embedding (B, 768)."""
        # The label is a text of one word; the rest is the null text.
        tokens = self.null_text_embed.repeat(len(embedding), 1, 1)
        tokens[:, 0] = torch.where(keep[:, None], self.text_to_cond(embedding), tokens[:, 0])
        tokens = self.attn_pool(tokens)
        vector = self.to_text_non_attn_cond(tokens.mean(dim=1))
        return tokens, torch.where(keep[:, None], vector, self.null_text_hidden)

    def forward(
        self, x: Tensor, log_snr: Tensor, geometry: Tensor, label: tuple[Tensor, Tensor]
    ) -> Tensor:
        """See `MaterialNetwork.forward`."""
        x = first = self.init_conv(torch.cat([geometry, x], dim=1))
        hidden = self.to_time_hiddens(log_snr[:, None])
        time_tokens = self.to_time_tokens(hidden).unflatten(-1, (TIME_TOKENS, -1))
        time = self.to_time_cond(hidden) + label[1]
        tokens = self.norm_cond(torch.cat([time_tokens, label[0]], dim=1))
        skipped: list[Tensor] = []
        for down in self.downs:
            x = down(x, time, tokens, skipped)
        x = self.mid_attn(self.mid_block1(x, time, tokens))
        x = self.mid_block2(x, time, tokens)
        for up in self.ups:
            x = up(x, time, tokens, skipped)
        return self.final_conv(self.final_res_block(torch.cat([x, first], dim=1), time))


class Down(nn.ModuleList):
    """A level of the encoder: residual blocks, attention, half the size."""

    def __init__(
        self, width: int, out: int, attends: bool, config: UNetConfig, *, last: bool
    ) -> None:
        context, time = config.channels, 4 * config.channels
        first = ResidualBlock(width, width, time, context if attends else None, config.heads)
        blocks = [ResidualBlock(width, width, time, gated=True) for _ in range(config.blocks)]
        attention = ImageTransformer(width, config.heads, context) if attends else nn.Identity()
        # The published list has an empty first item.
        super().__init__(
            [
                nn.Identity(),
                first,
                nn.ModuleList(blocks),
                attention,
                TwoKernels(width, out) if last else Halved(width, out),
            ]
        )

    def forward(self, x: Tensor, time: Tensor, tokens: Tensor, skipped: list[Tensor]) -> Tensor:
        """x (B, C, H, W); appends the skip connections to `skipped`."""
        _, first, blocks, attention, smaller = self
        x = first(x, time, tokens)
        for block in blocks:
            x = block(x, time)
            skipped.append(x)
        if isinstance(attention, ImageTransformer):
            x = attention(x, tokens)
        skipped.append(x)
        return smaller(x)


class Up(nn.ModuleList):
    """A level of the decoder: residual blocks with skip connections, attention, twice the size."""

    def __init__(
        self, out: int, width: int, attends: bool, config: UNetConfig, *, last: bool
    ) -> None:
        context, time = config.channels, 4 * config.channels
        joined = width + out
        first = ResidualBlock(joined, width, time, context if attends else None, config.heads)
        blocks = [ResidualBlock(joined, width, time, gated=True) for _ in range(config.blocks)]
        attention = ImageTransformer(width, config.heads, context) if attends else nn.Identity()
        super().__init__(
            [
                first,
                nn.ModuleList(blocks),
                attention,
                nn.Identity() if last else Doubled(width, out),
            ]
        )

    def forward(self, x: Tensor, time: Tensor, tokens: Tensor, skipped: list[Tensor]) -> Tensor:
        """x (B, C, H, W); takes this level's skip connections from `skipped`."""
        first, blocks, attention, larger = self
        x = first(_with_skipped(x, skipped), time, tokens)
        for block in blocks:
            x = block(_with_skipped(x, skipped), time)
        if isinstance(attention, ImageTransformer):
            x = attention(x, tokens)
        return larger(x)


def _with_skipped(x: Tensor, skipped: list[Tensor]) -> Tensor:
    return torch.cat([x, skipped.pop() * 2**-0.5], dim=1)


class ResidualBlock(nn.Module):
    """Two convolutions with an optional cross-attention between them, modulated by the time.

    gated : whether the channels are finally weighted by the whole image.
    """

    def __init__(
        self,
        width: int,
        out: int,
        time: int,
        context: int | None = None,
        heads: int = 1,
        *,
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.time_mlp = nn.Sequential(nn.SiLU(), nn.Linear(time, 2 * out))
        self.cross_attn = CrossAttention(out, heads, context) if context else None
        self.block1 = ConvolutionBlock(width, out)
        self.block2 = ConvolutionBlock(out, out)
        self.gca = GlobalGate(out) if gated else None
        self.res_conv = nn.Conv2d(width, out, 1) if width != out else nn.Identity()

    def forward(self, x: Tensor, time: Tensor, tokens: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), time (B, T), tokens (B, M, context)."""
        scale, shift = self.time_mlp(time)[:, :, None, None].chunk(2, dim=1)
        inner = self.block1(x)
        if self.cross_attn is not None:
            pixels = inner.flatten(2).transpose(1, 2)
            pixels = pixels + self.cross_attn(pixels, tokens)
            inner = pixels.transpose(1, 2).reshape(inner.shape)
        inner = self.block2(inner, scale, shift)
        if self.gca is not None:
            inner = inner * self.gca(inner)
        return inner + self.res_conv(x)


class ConvolutionBlock(nn.Module):
    """Group normalisation, scale and shift, SiLU and a convolution."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.groupnorm = nn.GroupNorm(GROUPS, width)
        self.project = nn.Conv2d(width, out, 3, padding=1)

    def forward(
        self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        """x (B, C, H, W), scale and shift (B, C, 1, 1)."""
        x = self.groupnorm(x)
        if scale is not None and shift is not None:
            x = x * (scale + 1) + shift
        return self.project(functional.silu(x))


class GlobalGate(nn.Module):
    """Weights (B, C, 1, 1) of the channels of (B, C, H, W), from a weighted mean of its pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(3, channels // 2)
        self.to_k = nn.Conv2d(channels, 1, 1)
        self.net = nn.Sequential(
            nn.Conv2d(channels, inner, 1), nn.SiLU(), nn.Conv2d(inner, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        weight = self.to_k(x).flatten(2).softmax(dim=-1)
        mean = x.flatten(2) @ weight.transpose(1, 2)
        return self.net(mean[..., None])


class MultiKernel(nn.Module):
    """Parallel convolutions of several sizes; the smaller the kernel, the more channels."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        widths = [out // 2 ** (number + 1) for number in range(len(KERNELS) - 1)]
        widths.append(out - sum(widths))
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, width, kernel, padding=kernel // 2)
            for width, kernel in zip(widths, KERNELS, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W)."""
        return torch.cat([conv(x) for conv in self.convs], dim=1)


class Waves(nn.Module):
    """A number (B, 1), and sines and cosines of it with learned frequencies (B, 17)."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(TIME_WAVES))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        angle = x * self.weights * (2 * math.pi)
        return torch.cat([x, angle.sin(), angle.cos()], dim=-1)


class Halved(nn.Sequential):
    """(B, C, H, W) to (B, out, H / 2, W / 2)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__(nn.PixelUnshuffle(2), nn.Conv2d(4 * width, out, 1))


class TwoKernels(nn.Module):
    """The sum of a wide and a narrow convolution, at the end of the encoder."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.fns = nn.ModuleList([nn.Conv2d(width, out, 3, padding=1), nn.Conv2d(width, out, 1)])

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W)."""
        wide, narrow = self.fns
        return wide(x) + narrow(x)


class Doubled(nn.Module):
    """(B, C, H, W) to (B, out, 2 H, 2 W)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        convolution = nn.Conv2d(width, 4 * out, 1)
        # The four pixels made from one start equal, so that no pattern shows.
        kernel = torch.empty(out, width, 1, 1)
        nn.init.kaiming_uniform_(kernel)
        with torch.no_grad():
            convolution.weight.copy_(kernel.repeat_interleave(4, dim=0))
        nn.init.zeros_(convolution.bias)
        self.net = nn.Sequential(convolution, nn.SiLU(), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.net(x)
