"""`Segmenter`: a small U-Net that separates the object of a photo from its background.

It has the input and output of U2-Net (Qin et al. 2020): a photo of 320 x 320 with ImageNet's
normalisation, and its alpha in 0..1. So rembg can run it, too, as `u2net_custom`. Internally it
works at half that size; a sharper outline needs refinement with the photo.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE = 320  # px, size of the input photo
REDUCTION = 2
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


class Block(nn.Module):
    """A residual block of two 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        nn.init.zeros_(self.body[-1].weight)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (B, C, H, W) plus the block's residual."""
        return functional.relu(x + self.body(x))


class Everywhere(nn.Module):
    """Adds to each pixel a function of the mean over all pixels, which convolutions cannot see."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (B, C, H, W) plus a value that is constant over H and W."""
        return x + self.mix(x.mean(dim=(2, 3), keepdim=True))


class Segmenter(nn.Module):
    """A U-Net over folded pixels.

    channels : per level; the first has a quarter of the photo's side, each next one half of that.
    middle : residual blocks of the coarsest level; the others have one each way.
    """

    def __init__(self, channels: tuple[int, ...] = (24, 48, 72, 96), middle: int = 2) -> None:
        super().__init__()
        steps = list(itertools.pairwise(channels))
        self.enter = nn.Conv2d(3 * 4, channels[0], 3, padding=1)
        self.down = nn.ModuleList(Block(c) for c in channels[:-1])
        self.shrink = nn.ModuleList(nn.Conv2d(4 * a, b, 1) for a, b in steps)
        self.middle = nn.Sequential(
            *(
                part
                for _ in range(middle)
                for part in (Block(channels[-1]), Everywhere(channels[-1]))
            )
        )
        self.grow = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in steps)
        self.up = nn.ModuleList(Block(c) for c in channels[:-1])
        self.leave = nn.Conv2d(channels[0], 4, 3, padding=1)

    def logits(self, photo: Tensor) -> Tensor:
        """Logits (B, 1, S, S) of normalised photos (B, 3, S, S); S must be a multiple of 32."""
        x = functional.relu(self.enter(functional.pixel_unshuffle(photo, 2)))
        kept = []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            x = block(x)
            kept.append(x)
            x = shrink(functional.pixel_unshuffle(x, 2))
        x = self.middle(x)
        for grow, block in zip(reversed(self.grow), reversed(self.up), strict=True):
            x = block(functional.pixel_shuffle(grow(x), 2) + kept.pop())
        return functional.pixel_shuffle(self.leave(x), 2)

    def forward(self, photo: Tensor) -> Tensor:
        """Alpha (B, 1, 320, 320) of normalised photos (B, 3, 320, 320)."""
        alpha = self.logits(functional.avg_pool2d(photo, REDUCTION)).sigmoid()
        return functional.interpolate(
            alpha, scale_factor=REDUCTION, mode="bilinear", align_corners=False
        )


def normalize(photo: Tensor) -> Tensor:
    """Normalise (B, 3, H, W) sRGB 0..1 as rembg does: by the brightest value, then ImageNet's."""
    peak = photo.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)
    mean, deviation = (
        torch.tensor(v, device=photo.device).view(3, 1, 1) for v in (MEAN, DEVIATION)
    )
    return (photo / peak - mean) / deviation
