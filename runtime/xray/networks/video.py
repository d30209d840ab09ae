"""`VideoPredictor`: the paper's network, with an image encoder of its own.

The denoiser of arXiv 2404.14329 (46 M parameters, a `UNetSpatioTemporalConditionModel` whose
frames are the layers) gets the image as latents beside each frame and as one token. There both
come from Stable Video Diffusion's encoders; here small ones are trained with it. It predicts clean
frames as every `Network` does, so that training and sampling are the same.
"""

from __future__ import annotations

import itertools

import torch
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from torch import Tensor, nn
from torch.nn import functional

from xray_addon.systems.xray_paper import TIME_IDS

from .base import CHANNELS, Network, NetworkConfig, Prediction

LATENTS = 4
TOKEN = 1024
HEAD_CHANNELS = 16
ENCODER_CHANNELS = (64, 128, 256)


class VideoPredictor(Network):
    """The paper's U-Net over layers as frames, and the encoder of its image."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config, ENCODER_CHANNELS[-1])
        self.fold = config.fold
        self.image_fold = config.fold * config.image_resolution // config.resolution
        size, levels = config.resolution // config.fold, len(config.channels)
        first = ENCODER_CHANNELS[0]
        self.image_in = nn.Conv2d(4 * self.image_fold**2, first, 3, padding=1)
        self.latents_out = nn.Conv2d(first, LATENTS, 3, padding=1)
        self.image_down = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(ENCODER_CHANNELS)
        )
        self.token_out = nn.Linear(ENCODER_CHANNELS[-1], TOKEN)
        folded = CHANNELS * config.fold**2
        self.unet = UNetSpatioTemporalConditionModel(
            sample_size=size,
            in_channels=folded + LATENTS,
            out_channels=folded,
            down_block_types=("CrossAttnDownBlockSpatioTemporal",) * (levels - 1)
            + ("DownBlockSpatioTemporal",),
            up_block_types=("UpBlockSpatioTemporal",)
            + ("CrossAttnUpBlockSpatioTemporal",) * (levels - 1),
            block_out_channels=config.channels,
            num_attention_heads=tuple(c // HEAD_CHANNELS for c in config.channels),
            layers_per_block=config.blocks,
            transformer_layers_per_block=1,
            cross_attention_dim=TOKEN,
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=256 * len(TIME_IDS),
            num_frames=config.layers,
        )
        nn.init.zeros_(self.unet.conv_out.weight)
        nn.init.zeros_(self.unet.conv_out.bias)

    def kernels(self) -> list[nn.Parameter]:
        """All within the U-Net but its first and last convolution and what embeds times."""
        outer = ("conv_in", "conv_out", "time_embedding", "add_embedding")
        return [
            parameter
            for name, parameter in self.unet.named_parameters()
            if parameter.ndim > 1 and not name.startswith(outer)
        ]

    def forward(
        self,
        image: Tensor,
        frames: Tensor | None = None,
        time: Tensor | None = None,
        fov_x: Tensor | None = None,  # noqa: ARG002 (it is not told the lens)
    ) -> Prediction:
        """As `XRayPredictor.forward`."""
        batch, dtype = len(image), self.image_in.weight.dtype
        if frames is None:
            frames = image.new_zeros(batch, *self.frame_shape)
        if time is None:
            time = image.new_zeros(batch)
        features = functional.silu(
            self.image_in(functional.pixel_unshuffle(image.to(dtype), self.image_fold))
        )
        latents = self.latents_out(features)[:, None].expand(-1, self.config.layers, -1, -1, -1)
        for layer in self.image_down:
            features = functional.silu(layer(features))
        summary = features.mean(dim=(2, 3))
        folded = functional.pixel_unshuffle(frames.to(dtype), self.fold)
        out = self.unet(
            torch.cat([folded, latents], dim=2),
            time.to(dtype) * 1000,
            self.token_out(summary)[:, None],
            image.new_tensor(TIME_IDS).expand(batch, -1).to(dtype),
        ).sample
        out = functional.pixel_shuffle(out.float(), self.fold)
        return Prediction(out, self.pose(summary))
