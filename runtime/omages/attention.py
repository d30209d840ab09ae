"""Attention of the material network: cosine similarity, with a learned null token among the keys.

Parameters have their published names (imagen-pytorch 1.26).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

HEAD_CHANNELS = 64
SCALE = 8.0  # of the cosine similarities


class ScaleNorm(nn.Module):
    """Layer normalisation over the last axis with a scale and no shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., C)."""
        epsilon = 1e-5 if x.dtype == torch.float32 else 1e-3
        return functional.layer_norm(x, x.shape[-1:], self.g.to(x.dtype), eps=epsilon)


class FeedForward(nn.Sequential):
    """Two layers on each token (B, N, C)."""

    def __init__(self, channels: int, factor: int = 2) -> None:
        super().__init__(
            ScaleNorm(channels),
            nn.Linear(channels, factor * channels, bias=False),
            nn.GELU(),
            ScaleNorm(factor * channels),
            nn.Linear(factor * channels, channels, bias=False),
        )


class CosineAttention(nn.Module):
    """The base of the attention classes below. key_heads : heads of keys and values."""

    def __init__(self, channels: int, heads: int, key_channels: int, key_heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, heads * HEAD_CHANNELS, bias=False)
        self.to_kv = nn.Linear(key_channels, 2 * key_heads * HEAD_CHANNELS, bias=False)
        self.q_scale = nn.Parameter(torch.ones(HEAD_CHANNELS))
        self.k_scale = nn.Parameter(torch.ones(HEAD_CHANNELS))
        project = nn.Linear(heads * HEAD_CHANNELS, channels, bias=False)
        self.to_out = nn.Sequential(project, self.out_norm(channels))

    def out_norm(self, channels: int) -> nn.Module:
        """The normalisation of the result."""
        return ScaleNorm(channels)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query (B, N, H * D), key and value (B, M, H * D or D) to (B, N, C)."""
        query, key, value = (_heads(part) for part in (query, key, value))
        query = functional.normalize(query, dim=-1) * self.q_scale
        key = functional.normalize(key, dim=-1) * self.k_scale
        key, value = (part.expand(-1, self.heads, -1, -1) for part in (key, value))
        mixed = functional.scaled_dot_product_attention(query, key, value, scale=SCALE)
        return self.to_out(mixed.transpose(1, 2).flatten(2))


class SelfAttention(CosineAttention):
    """Attention of tokens (B, N, C) to each other and optionally to a context (B, M, context).

    All query heads share one head of keys and values.
    """

    def __init__(self, channels: int, heads: int, context: int | None) -> None:
        super().__init__(channels, heads, channels, 1)
        self.norm = ScaleNorm(channels)
        self.null_kv = nn.Parameter(torch.randn(2, HEAD_CHANNELS))
        if context:
            project = nn.Linear(context, 2 * HEAD_CHANNELS)
            self.to_context = nn.Sequential(nn.LayerNorm(context), project)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """See the class."""
        x = self.norm(x)
        pairs = [self.null_kv.flatten().expand(len(x), 1, -1), self.to_kv(x)]
        if context is not None:
            pairs.insert(0, self.to_context(context))
        key, value = torch.cat(pairs, dim=1).chunk(2, dim=-1)
        return self.attend(self.to_q(x), key, value)


class CrossAttention(CosineAttention):
    """Attention of tokens (B, N, C) to a context (B, M, context)."""

    def __init__(self, channels: int, heads: int, context: int) -> None:
        super().__init__(channels, heads, context, heads)
        self.norm = ScaleNorm(channels)
        self.null_kv = nn.Parameter(torch.randn(2, HEAD_CHANNELS))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """See the class."""
        key, value = self.to_kv(context).chunk(2, dim=-1)
        null_key, null_value = (
            null.repeat(self.heads).expand(len(x), 1, -1) for null in self.null_kv
        )
        key = torch.cat([null_key, key], dim=1)
        value = torch.cat([null_value, value], dim=1)
        return self.attend(self.to_q(self.norm(x)), key, value)


class LatentAttention(CosineAttention):
    """Attention of latents (B, N, C) to tokens (B, M, C) and to themselves."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(channels, heads, channels, heads)
        self.norm = nn.LayerNorm(channels)
        self.norm_latents = nn.LayerNorm(channels)

    def out_norm(self, channels: int) -> nn.Module:
        """The normalisation of the result."""
        return nn.LayerNorm(channels)

    def forward(self, latents: Tensor, tokens: Tensor) -> Tensor:
        """See the class."""
        latents = self.norm_latents(latents)
        key, value = self.to_kv(torch.cat([self.norm(tokens), latents], dim=1)).chunk(2, dim=-1)
        return self.attend(self.to_q(latents), key, value)


class Resampler(nn.Module):
    """Many tokens (B, M, C) to a few latents (B, pooled + latents, C)."""

    def __init__(
        self,
        channels: int,
        heads: int,
        depth: int = 2,
        latents: int = 32,
        pooled: int = 4,
        longest: int = 512,
    ) -> None:
        super().__init__()
        self.pooled = pooled
        self.pos_emb = nn.Embedding(longest, channels)
        self.latents = nn.Parameter(torch.randn(latents, channels))
        self.to_latents_from_mean_pooled_seq = nn.Sequential(
            ScaleNorm(channels), nn.Linear(channels, channels * pooled)
        )
        self.layers = nn.ModuleList(
            nn.ModuleList([LatentAttention(channels, heads), FeedForward(channels, 4)])
            for _ in range(depth)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """See the class."""
        placed = tokens + self.pos_emb.weight[: tokens.shape[1]]
        pooled = self.to_latents_from_mean_pooled_seq(tokens.mean(dim=1))
        latents = torch.cat(
            [
                pooled.view(len(tokens), self.pooled, -1),
                self.latents.expand(len(tokens), -1, -1),
            ],
            dim=1,
        )
        for attention, feed_forward in self.layers:
            latents = latents + attention(latents, placed)
            latents = latents + feed_forward(latents)
        return latents


class ImageTransformer(nn.Module):
    """Self-attention over the pixels of (B, C, H, W), optionally with a context (B, M, context)."""

    def __init__(self, channels: int, heads: int, context: int | None = None) -> None:
        super().__init__()
        attention = SelfAttention(channels, heads, context)
        self.layers = nn.ModuleList([nn.ModuleList([attention, FeedForward(channels)])])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """See the class."""
        tokens = x.flatten(2).transpose(1, 2)
        for attention, feed_forward in self.layers:
            tokens = tokens + attention(tokens, context)
            tokens = tokens + feed_forward(tokens)
        return tokens.transpose(1, 2).reshape(x.shape)


def _heads(x: Tensor) -> Tensor:
    """(B, N, H * D) to (B, H, N, D)."""
    return x.unflatten(-1, (-1, HEAD_CHANNELS)).transpose(1, 2)
