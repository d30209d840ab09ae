"""The default network: it predicts an X-Ray from an image, in one pass or by sampling.

Layers are stacked as channels (arXiv 2404.14329 treats them as video frames). 2x2 pixels are folded
into channels (pixel unshuffle), so the network works at 32x32 for 64x64 frames, which two CPU cores
can train. It is a U-Net of residual blocks, with attention at its coarsest level. Most of the work
is large matrix products at few pixels, which a CPU with bfloat16 units does ten times faster than
anything else. Therefore it has few normalisations and activations.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...torch_helpers.attention import TIME_FEATURES, time_features
from ...torch_helpers.convolution import convolve
from .base import (
    CHANNELS,
    Attention,
    Block,
    Convolution,
    Network,
    NetworkConfig,
    Norm,
    Prediction,
    Stage,
    lens_features,
)


class XRayPredictor(Network):
    """A U-Net over folded pixels; see the module's docstring.

    Each level's grid is half as fine as the one before. The coarsest level has its blocks once,
    each after an attention. The other levels have theirs on the way down and again on the way up.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config, config.channels[-1])
        layers, resolution, channels = config.layers, config.resolution, config.channels
        blocks, fold, frame_features = config.blocks, config.fold, config.frame_features
        self.fold = fold
        self.image_fold = fold * config.image_resolution // resolution
        folded = layers * CHANNELS * fold**2
        self.frame_in = nn.Conv2d(folded, frame_features, 1)
        self.image_in = nn.Conv2d(
            4 * self.image_fold**2 + frame_features, channels[0], 3, padding=1
        )
        # Depth depends on a pixel's place in the image, which convolutions do not know.
        sizes = [resolution // fold // 2**level for level in range(len(channels))]
        self.places = nn.ParameterList(
            nn.Parameter(torch.zeros(c, n, n)) for c, n in zip(channels, sizes, strict=True)
        )
        self.times = nn.ModuleList(nn.Linear(TIME_FEATURES, c) for c in channels)
        fine, coarse = list(zip(channels, blocks, strict=True))[:-1], channels[-1]
        steps = list(itertools.pairwise(channels))
        self.down = nn.ModuleList(
            Stage(*(Block(c, lens=config.lens) for _ in range(n))) for c, n in fine
        )
        self.shrink = nn.ModuleList(Convolution(4 * a, b, 1) for a, b in steps)
        self.middle = Stage(
            *(
                part
                for _ in range(blocks[-1])
                for part in (Attention(coarse), Block(coarse, lens=config.lens))
            ),
            Norm(coarse),
        )
        self.grow = nn.ModuleList(Convolution(b, 4 * a, 1) for a, b in steps)
        self.skip = nn.ModuleList(Convolution(a, a, 1) for a, _ in steps)
        self.up = nn.ModuleList(
            Stage(*(Block(c, lens=config.lens) for _ in range(n)), Norm(c)) for c, n in fine
        )
        self.frame_out = nn.Conv2d(channels[0], folded, 3, padding=1)
        for layer in (*self.times, self.frame_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def kernels(self) -> list[nn.Parameter]:
        """Those of the `Convolution`s."""
        return [module.weight for module in self.modules() if isinstance(module, Convolution)]

    def lens_parameters(self) -> list[nn.Parameter]:
        """Those by which the lens acts on the `Block`s."""
        blocks = [module for module in self.modules() if isinstance(module, Block)]
        return [block.lens.weight for block in blocks if self.config.lens]

    def forward(
        self,
        image: Tensor,
        frames: Tensor | None = None,
        time: Tensor | None = None,
        fov_x: Tensor | None = None,
    ) -> Prediction:
        """Predict clean frames.

        image : (B, 4, I, I) from `image_to_input`. frames : (B, L, 8, S, S) with the visible layer
        clean and the others noised; by default zeros. time : (B,) share of signal in the noised
        layers, 0..1; by default 0. fov_x : (B,) the camera's horizontal field of view, radians; by
        default the canonical one. A network that is not told the lens ignores it.
        """
        batch, dtype = len(image), self.frame_out.weight.dtype
        folded_image = functional.pixel_unshuffle(image.to(dtype), self.image_fold)
        if frames is None:  # the output of `frame_in` for zeros
            features = self.frame_in.bias[:, None, None].expand(batch, -1, *folded_image.shape[-2:])
        else:
            frames = frames.to(dtype).flatten(1, 2)
            features = self.frame_in(functional.pixel_unshuffle(frames, self.fold))
        if time is None:
            time = image.new_zeros(batch)
        signal = time_features(1000 * time).to(dtype)
        told = self.config.lens and fov_x is not None
        lens = lens_features(fov_x).to(dtype) if told else None

        x = torch.cat([folded_image, features], dim=1)
        x = self.image_in(x.contiguous(memory_format=torch.channels_last))
        kept = []
        for level, place in enumerate(self.places):
            x = x + place + self.times[level](signal)[:, :, None, None]
            if level < len(self.down):
                x = self.down[level](x, lens)
                kept.append(x)
                x = self.shrink[level](functional.pixel_unshuffle(x, 2))
        x = self.middle(x, lens)
        pose = self.pose(x.mean(dim=(2, 3)))
        for level in reversed(range(len(self.up))):
            x = functional.pixel_shuffle(self.grow[level](x), 2) + self.skip[level](kept[level])
            x = self.up[level](x, lens)
        kernel = self.frame_out.weight.permute(0, 2, 3, 1)
        x = convolve(x, kernel, self.frame_out.bias)
        out = functional.pixel_shuffle(x.float(), self.fold)  # (B, L * 8, S, S)
        return Prediction(out.unflatten(1, self.frame_shape[:2]), pose)
