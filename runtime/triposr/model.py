"""The TripoSR network: image to scene code. Modules are named as in the published checkpoint.

    image (B, 3, S, S) -> tokens of the image -> three planes of tokens that attend to them
    -> scene code (B, 3, C, 2P, 2P), which `field.query` reads as density and colour

The scene code is float32 and describes the object completely: 1.9 MB at full size.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from ..torch_helpers.parameters import normal_parameter
from .config import TripoSRConfig
from .vit import VisionTransformer

GROUPS = 32


class Attention(nn.Module):
    """Multi-head attention of x (B, N, C) to `context` (B, M, D)."""

    def __init__(self, width: int, context: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_size
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_k = nn.Linear(context, inner, bias=False)
        self.to_v = nn.Linear(context, inner, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(inner, width)])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """The update of x (B, N, C) from the context (B, M, D)."""
        query, key, value = (
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projected in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.to_out[0](mixed.transpose(1, 2).flatten(2))


class GatedProjection(nn.Module):
    """GEGLU: half of the outputs, each multiplied by the GELU of its partner in the other half."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, N, C); the same number of tokens."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * functional.gelu(gate)


class Block(nn.Module):
    """Self-attention, attention to the image and a perceptron, each with pre-normalisation."""

    def __init__(self, width: int, context: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attn1 = Attention(width, width, heads, head_size)
        self.attn2 = Attention(width, context, heads, head_size)
        # Index 1 is the published network's dropout, which has no weights.
        self.ff = nn.ModuleDict(
            {
                "net": nn.Sequential(
                    GatedProjection(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)
                )
            }
        )

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x (B, N, C), updated from the context (B, M, D)."""
        normed = self.norm1(x)
        x = x + self.attn1(normed, normed)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff["net"](self.norm3(x))


class Backbone(nn.Module):
    """Updates plane tokens (B, C, N) by attention to image tokens (B, M, D); keeps the shape."""

    def __init__(self, config: TripoSRConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_size
        self.norm = nn.GroupNorm(GROUPS, config.channels, eps=1e-6)
        self.proj_in = nn.Linear(config.channels, inner)
        self.transformer_blocks = nn.ModuleList(
            Block(inner, config.vit.hidden_size, config.heads, config.head_size)
            for _ in range(config.layers)
        )
        self.proj_out = nn.Linear(inner, config.channels)

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        """See the class."""
        x = self.proj_in(self.norm(tokens).transpose(1, 2))
        for block in self.transformer_blocks:
            x = block(x, context)
        return self.proj_out(x).transpose(1, 2) + tokens


class PlaneTokens(nn.Module):
    """The learned initial values of the three planes, (3, C, P, P)."""

    def __init__(self, config: TripoSRConfig) -> None:
        super().__init__()
        size = config.plane_size
        std = 1 / config.channels**0.5
        self.embeddings = normal_parameter(3, config.channels, size, size, std=std)

    def forward(self, batch: int) -> Tensor:
        """Tokens (B, C, 3 P P): plane by plane, row by row."""
        return self.embeddings.transpose(0, 1).flatten(1).expand(batch, -1, -1)


class Upsampler(nn.Module):
    """Planes (B, 3, C, P, P) to twice the size, (B, 3, c, 2P, 2P)."""

    def __init__(self, config: TripoSRConfig) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(
            config.channels, config.plane_channels, kernel_size=2, stride=2
        )

    def forward(self, planes: Tensor) -> Tensor:
        """See the class."""
        return self.upsample(planes.flatten(0, 1)).unflatten(0, planes.shape[:2])


class FieldPerceptron(nn.Module):
    """Features of a point (..., 3 c) to raw density and raw colour (..., 4)."""

    def __init__(self, config: TripoSRConfig) -> None:
        super().__init__()
        activation = {"silu": nn.SiLU, "relu": nn.ReLU}[config.activation]
        widths = [3 * config.plane_channels] + config.hidden_layers * [config.neurons]
        modules: list[nn.Module] = []
        for before, after in pairwise(widths):
            modules += [nn.Linear(before, after), activation()]
        self.layers = nn.Sequential(*modules, nn.Linear(config.neurons, 4))

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        return self.layers(features)


class TripoSR(nn.Module):
    """The whole network. `forward` returns scene codes; `field.query` uses `decoder`."""

    def __init__(self, config: TripoSRConfig) -> None:
        super().__init__()
        self.config = config
        self.image_tokenizer = nn.ModuleDict({"model": VisionTransformer(config.vit)})
        self.tokenizer = PlaneTokens(config)
        self.backbone = Backbone(config)
        self.post_processor = Upsampler(config)
        self.decoder = FieldPerceptron(config)

    def condition(self, image: Tensor) -> Tensor:
        """Resize images (B, 3, H, W), 0..1, to the encoder's size (B, 3, S, S)."""
        size = (self.config.image_size, self.config.image_size)
        return functional.interpolate(
            image, size, mode="bilinear", align_corners=False, antialias=True
        )

    def image_tokens(self, image: Tensor) -> Tensor:
        """Tokens (B, 1 + patches, D) of images (B, 3, S, S), class token first."""
        return self.image_tokenizer["model"](image)

    def scene_codes(self, image_tokens: Tensor) -> Tensor:
        """Scene codes (B, 3, c, 2P, 2P) of image tokens."""
        size = self.config.plane_size
        tokens = self.backbone(self.tokenizer(len(image_tokens)), image_tokens)
        planes = tokens.unflatten(2, (3, size, size)).transpose(1, 2)
        return self.post_processor(planes.contiguous())

    def forward(self, image: Tensor) -> Tensor:
        """Scene codes (B, 3, c, 2P, 2P) of images (B, 3, H, W), 0..1 on 0.5 grey."""
        return self.scene_codes(self.image_tokens(self.condition(image)))
