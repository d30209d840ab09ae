"""Shared by our small U-Nets: attention between pixels, and time embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TIME_FEATURES = 64


def time_features(steps: Tensor) -> Tensor:
    """Sines and cosines (B, 64) of `steps` (B,), 0 to 1000, as a transformer's positions."""
    half = TIME_FEATURES // 2
    places = torch.arange(half, dtype=torch.float32, device=steps.device) / (half - 1)
    angle = steps.float()[:, None] * torch.exp(-math.log(10_000) * places)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def attend(qkv: Tensor, heads: int) -> Tensor:
    """Self-attention between all pixels: queries, keys and values (B, 3 * C, H, W) to (B, C, H, W).

    Channels are ordered by query, key and value, then by head.
    """
    batch, channels, height, width = qkv.shape
    parts = qkv.view(batch, 3, heads, -1, height * width).transpose(-1, -2)
    query, key, value = parts.unbind(1)  # (B, heads, H * W, C / heads)
    # Written out: for so few pixels the fused kernel is slower on a CPU.
    weight = (query @ key.transpose(-1, -2)) / math.sqrt(query.shape[-1])
    mixed = (weight.softmax(dim=-1) @ value).transpose(-1, -2)
    return mixed.reshape(batch, channels // 3, height, width)
