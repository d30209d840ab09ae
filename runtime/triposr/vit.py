"""ViT-B/16 for DINO's weights. Modules are named as in the published checkpoint.

Positions are interpolated as for the published results: bicubic, with a slightly too large scale
factor (Hugging Face transformers 4.35). Newer versions of that library changed this.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..torch_helpers.parameters import normal_parameter
from .config import VitConfig

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Embeddings(nn.Module):
    """Image (B, 3, H, W) to tokens (B, 1 + patches, C), class token first."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        count = (config.image_size // patch) ** 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = normal_parameter(1, 1 + count, width, std=0.02)
        self.patch_embeddings = nn.ModuleDict(
            {"projection": nn.Conv2d(3, width, kernel_size=patch, stride=patch)}
        )

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        patches = self.patch_embeddings["projection"](image)
        rows, columns = patches.shape[-2:]
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        return tokens + self.positions(rows, columns)

    def positions(self, rows: int, columns: int) -> Tensor:
        """The position table (1, 1 + rows * columns, C) for a grid of patches."""
        table = self.position_embeddings
        side = round((table.shape[1] - 1) ** 0.5)
        if (rows, columns) == (side, side):
            return table
        grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        # The extra 0.1 patch, originally a guard against rounding, affects the results.
        scale = ((rows + 0.1) / side, (columns + 0.1) / side)
        grid = functional.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
        return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


class Layer(nn.Module):
    """Self-attention and a perceptron, with pre-normalisation."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.heads = config.num_attention_heads
        projections = {name: nn.Linear(width, width) for name in ("query", "key", "value")}
        self.attention = nn.ModuleDict(
            {"attention": nn.ModuleDict(projections), "output": _dense(width, width)}
        )
        self.intermediate = _dense(width, inner)
        self.output = _dense(inner, width)
        self.layernorm_before = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.layernorm_after = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, N, C); the same number of tokens."""
        normed = self.layernorm_before(x)
        query, key, value = (
            self.attention["attention"][name](normed)
            .unflatten(-1, (self.heads, -1))
            .transpose(1, 2)
            for name in ("query", "key", "value")
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.attention["output"]["dense"](mixed.transpose(1, 2).flatten(2))
        inner = functional.gelu(self.intermediate["dense"](self.layernorm_after(x)))
        return x + self.output["dense"](inner)


class VisionTransformer(nn.Module):
    """Image (B, 3, H, W), 0..1, to tokens (B, 1 + H W / patch^2, C), class token first."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.encoder = nn.ModuleDict({"layer": layers})
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        # In every checkpoint, but never used.
        self.pooler = _dense(config.hidden_size, config.hidden_size)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        mean, std = (image.new_tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
        x = self.embeddings((image - mean) / std)
        for layer in self.encoder["layer"]:
            x = layer(x)
        return self.layernorm(x)


def _dense(inputs: int, outputs: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(inputs, outputs)})
