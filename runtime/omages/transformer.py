"""The geometry network: a DiT that predicts noise and its variance in an image of positions.

Peebles and Xie, "Scalable Diffusion Models with Transformers" (arXiv 2212.09748), as DiT-B/1 with
cross-attention layers, which are in the published weights but unused. Parameters have their
published names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from xray_addon.omage.categories import CATEGORIES

CHANNELS = 4  # position and occupancy
TIME_CHANNELS = 256
HEAD_CHANNELS = 64  # of the published network


@dataclass(frozen=True)
class TransformerConfig:
    """The network's configuration. The defaults are the published ones.

    size : pixels per side. heads : of the attention.
    """

    size: int = 64
    hidden: int = 768
    depth: int = 12
    heads: int = 12
    classes: int = len(CATEGORIES)

    def __post_init__(self) -> None:
        if min(self.size, self.hidden, self.depth, self.heads, self.classes) < 1:
            raise ValueError("sizes of a network must be 1 or more")
        if self.hidden % self.heads or self.hidden % 4:
            raise ValueError(f"hidden must be a multiple of heads and of 4, got {self.hidden}")


class GeometryTransformer(nn.Module):
    """Noise and its variance (B, 8, S, S) from images (B, 4, S, S), time steps (B,), labels (B,).

    The label `config.classes` means none.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.config = config
        self.x_embedder = PixelEmbedding(hidden)
        self.t_embedder = TimeEmbedding(hidden)
        self.y_embedder = LabelEmbedding(config.classes + 1, hidden)
        self.pos_embed = nn.Parameter(position_table(config.size, hidden), requires_grad=False)
        self.blocks = nn.ModuleList(Block(hidden, config.heads) for _ in range(config.depth))
        self.final_layer = FinalLayer(hidden, 2 * CHANNELS)
        self._initialise()

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """See the class."""
        tokens = self.x_embedder(x) + self.pos_embed
        condition = self.t_embedder(t) + self.y_embedder(label)
        for block in self.blocks:
            tokens = block(tokens, condition)
        out = self.final_layer(tokens, condition)
        return out.transpose(1, 2).reshape(len(x), -1, *x.shape[2:])

    def _initialise(self) -> None:
        """As published: every block starts as the identity, the output as zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.flatten(1))
        nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        for layer in (self.t_embedder.mlp[0], self.t_embedder.mlp[2]):
            nn.init.normal_(layer.weight, std=0.02)
        for modulation in (
            *(block.adaLN_modulation for block in self.blocks),
            self.final_layer.adaLN_modulation,
        ):
            nn.init.zeros_(modulation[1].weight)
        nn.init.zeros_(self.final_layer.linear.weight)


class PixelEmbedding(nn.Module):
    """Images (B, 4, S, S) to tokens (B, S * S, C), one per pixel."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(CHANNELS, hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.proj(x).flatten(2).transpose(1, 2)


class TimeEmbedding(nn.Module):
    """Time steps (B,) to (B, C)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(TIME_CHANNELS, hidden), nn.SiLU(), nn.Linear(hidden, hidden)
        )

    def forward(self, t: Tensor) -> Tensor:
        """See the class."""
        half = TIME_CHANNELS // 2
        step = torch.arange(half, dtype=torch.float32, device=t.device)
        angle = t[:, None].float() * torch.exp(-math.log(10_000) * step / half)
        waves = torch.cat([angle.cos(), angle.sin()], dim=1)
        return self.mlp(waves.to(self.mlp[0].weight.dtype))


class LabelEmbedding(nn.Module):
    """Labels (B,) to (B, C)."""

    def __init__(self, classes: int, hidden: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(classes, hidden)

    def forward(self, label: Tensor) -> Tensor:
        """See the class."""
        return self.embedding_table(label)


class Block(nn.Module):
    """Self-attention and an MLP, both scaled, shifted and gated by the condition (adaLN-Zero)."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False, eps=1e-6)
        self.attn = SelfAttention(hidden, heads)
        self.cross_attn = UnusedCrossAttention(hidden)
        self.mlp = Mlp(hidden)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 6 * hidden))

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """tokens (B, N, C), condition (B, C)."""
        modulation = self.adaLN_modulation(condition)[:, None].chunk(6, dim=-1)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation
        tokens = tokens + gate * self.attn(self.norm(tokens) * (1 + scale) + shift)
        return tokens + mlp_gate * self.mlp(self.norm(tokens) * (1 + mlp_scale) + mlp_shift)


class SelfAttention(nn.Module):
    """Attention of tokens (B, N, C) to each other."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.proj = nn.Linear(hidden, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        """See the class."""
        batch, count, hidden = tokens.shape
        parts = self.qkv(tokens).view(batch, count, 3, self.heads, hidden // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, count, hidden))


class UnusedCrossAttention(nn.Module):
    """Parameters of the published checkpoint that only a condition image would use."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.c_kv_attn = nn.Linear(hidden, 2 * hidden)
        self.c_q_attn = nn.Linear(hidden, hidden)
        self.c_proj = nn.Linear(hidden, hidden)


class Mlp(nn.Module):
    """Two layers on each token (B, N, C)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden, 4 * hidden)
        self.fc2 = nn.Linear(4 * hidden, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        """See the class."""
        return self.fc2(functional.gelu(self.fc1(tokens), approximate="tanh"))


class FinalLayer(nn.Module):
    """Tokens (B, N, C) to pixel values (B, N, out)."""

    def __init__(self, hidden: int, out: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(hidden, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(hidden, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 2 * hidden))

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """See the class."""
        shift, scale = self.adaLN_modulation(condition)[:, None].chunk(2, dim=-1)
        return self.linear(self.norm_final(tokens) * (1 + scale) + shift)


def position_table(size: int, hidden: int) -> Tensor:
    """Sines and cosines (1, S * S, C) of each pixel's column, then of its row."""
    rate = 1 / 10_000 ** (torch.arange(hidden // 4, dtype=torch.float64) / (hidden / 4))
    angle = torch.arange(size, dtype=torch.float64)[:, None] * rate
    waves = torch.cat([angle.sin(), angle.cos()], dim=1)
    columns = waves[None].expand(size, -1, -1)
    rows = waves[:, None].expand(-1, size, -1)
    return torch.cat([columns, rows], dim=-1).reshape(1, size * size, hidden).float()
