"""The networks' image conditioning: CLIP's embedding and the VAEs' latents."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .parts import Normalization

IMAGE_SIZE = 512  # px, input size of SVD's VAE
CLIP_SIZE = 224
VAE_FACTOR = 8  # image px per cell of the latents


def to_tensor(rgb: NDArray[np.uint8]) -> Tensor:
    """(1, 3, H, W) in -1..1 from (H, W, 3) uint8."""
    return torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255 * 2 - 1


def opaque(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) of a cut-out: its colours without alpha, black where it is fully transparent.

    This equals dropping the alpha channel of Blender's renders, as in the published code.
    """
    return rgba[..., :3] * (rgba[..., 3:] > 0).astype(np.uint8)


def resized(image: Tensor, size: int) -> Tensor:
    """`image` (B, C, H, W) resized to size x size, bilinear."""
    if image.shape[-2:] == (size, size):
        return image
    return functional.interpolate(image, size=(size, size), mode="bilinear", align_corners=False)


def shrunk(image: Tensor, size: int) -> Tensor:
    """`image` (B, C, H, W) reduced to size x size: Gaussian blur, then bicubic.

    The filter of the published pipeline: scikit-image's sigma of (factor - 1) / 2, truncated at two
    sigma, with aligned corners.
    """
    for dim in (3, 2):
        sigma = max((image.shape[dim] / size - 1) / 2, 1e-3)
        half = int(max(4 * sigma, 3)) // 2
        x = torch.arange(-half, half + 1, dtype=image.dtype, device=image.device)
        weights = (-(x**2) / (2 * sigma**2)).exp()
        weights = (weights / weights.sum()).view((1, 1, 1, -1) if dim == 3 else (1, 1, -1, 1))
        sides = (half, half, 0, 0) if dim == 3 else (0, 0, half, half)
        padded = functional.pad(image, sides, mode="reflect")
        channels = image.shape[1]
        kernel = weights.expand(channels, -1, -1, -1)
        image = functional.conv2d(padded, kernel, groups=channels)
    return functional.interpolate(image, (size, size), mode="bicubic", align_corners=True)


def embed(encoder: Any, normalization: Normalization, image: Tensor) -> Tensor:
    """CLIP's embedding (B, 1, D) of `image` (B, 3, H, W) in -1..1, any size."""
    # In -1..1 as published, so that the bicubic overshoot is not clipped.
    small = (shrunk(image.float(), CLIP_SIZE) + 1) / 2
    mean, std = (
        small.new_tensor(v).view(1, 3, 1, 1) for v in (normalization.mean, normalization.std)
    )
    return encoder(_like(encoder, (small - mean) / std)).image_embeds[:, None].float()


def svd_latents(vae: Any, image: Tensor, size: int) -> Tensor:
    """Latents (B, 4, size, size) of `image` (B, 3, H, W): the mode, not scaled."""
    large = resized(image, IMAGE_SIZE)
    return resized(vae.encode(_like(vae, large)).latent_dist.mode().float(), size)


def sdxl_latents(vae: Any, image: Tensor, size: int) -> Tensor:
    """Latents (B, 4, size, size) of `image` at `VAE_FACTOR` * size px: the mode, not scaled."""
    large = resized(image, VAE_FACTOR * size)
    return vae.encode(_like(vae, large)).latent_dist.mode().float()


def _like(module: Any, image: Tensor) -> Tensor:
    """`image` on the device and in the precision of `module`."""
    parameter = next(module.parameters())
    return image.to(parameter.device, parameter.dtype)
