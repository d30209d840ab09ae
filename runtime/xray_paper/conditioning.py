"""What the networks are told of the image: CLIP's embedding and the VAEs' latents."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import (
    _resize_with_antialiasing,
)
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .parts import Normalization

IMAGE_SIZE = 512  # px, what SVD's VAE sees
CLIP_SIZE = 224
VAE_FACTOR = 8  # px of the image to a cell of the latents


def to_tensor(rgb: NDArray[np.uint8]) -> Tensor:
    """(1, 3, H, W) in -1..1 from (H, W, 3) uint8."""
    return torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255 * 2 - 1


def opaque(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) of a cut-out: its colours as they are, black where it is wholly transparent.

    The published code drops the alpha channel of Blender's renders, which is this.
    """
    return rgba[..., :3] * (rgba[..., 3:] > 0).astype(np.uint8)


def resized(image: Tensor, size: int) -> Tensor:
    """`image` (B, C, H, W) at size x size, bilinear."""
    if image.shape[-2:] == (size, size):
        return image
    return functional.interpolate(image, size=(size, size), mode="bilinear", align_corners=False)


def embed(encoder: Any, normalization: Normalization, image: Tensor) -> Tensor:
    """CLIP's embedding (B, 1, D) of `image` (B, 3, H, W) in -1..1, any size."""
    # diffusers' own filter, in -1..1: another one would give other numbers.
    small = (_resize_with_antialiasing(image.float(), (CLIP_SIZE, CLIP_SIZE)) + 1) / 2
    mean, std = (
        small.new_tensor(v).view(1, 3, 1, 1) for v in (normalization.mean, normalization.std)
    )
    return encoder(_like(encoder, (small - mean) / std)).image_embeds[:, None].float()


def svd_latents(vae: Any, image: Tensor, size: int) -> Tensor:
    """Latents (B, 4, size, size) of `image` (B, 3, H, W): the mode, not scaled."""
    large = resized(image, IMAGE_SIZE)
    return resized(vae.encode(_like(vae, large)).latent_dist.mode().float(), size)


def sdxl_latents(vae: Any, image: Tensor, size: int) -> Tensor:
    """Latents (B, 4, size, size) of `image` seen at `VAE_FACTOR` * size: the mode, not scaled."""
    large = resized(image, VAE_FACTOR * size)
    return vae.encode(_like(vae, large)).latent_dist.mode().float()


def _like(module: Any, image: Tensor) -> Tensor:
    """`image` on the device and in the precision of `module`."""
    parameter = next(module.parameters())
    return image.to(parameter.device, parameter.dtype)
