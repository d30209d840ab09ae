"""The networks that turn an image, or its slices, into a signed distance field.

`SliceNet` (36 million parameters in its published size) draws the twelve slices of an image and
uses the intermediate features for the field. `GTSliceNet` (18 million) uses given slices.

Both evaluate the field at points in the image's camera: +x right, +y down, +z away from the viewer,
the origin at the object's middle, `DISTANCE` from the camera. Images are (B, 3, S, S) in -1..1;
slices (B, 12, 3, S, S), in the order of `xray_addon.slices.slicing.NAMES`.

"Slice3D" (Wang et al., CVPR 2024, arXiv 2312.02221). Parameters have their published names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xray_addon.slices.slicing import COUNT, DISTANCE

from .vgg import features, vgg16_stages

# Focal length of the published camera, relative to the image's width.
FOCAL = 35 / 32
# Factor by which an image is smaller at the input of the last stage.
_SHRINK = 16


@dataclass(frozen=True)
class NetworkConfig:
    """The configuration of a network. The defaults are the published ones.

    image_size : px, a multiple of 16. channels : of VGG16's five stages. dim, heads, feedforward,
    layers : of the transformer that turns a point's features into a distance. dropout : of the same
    in training; small networks learn their distances faster without it.
    """

    image_size: int = 128
    channels: tuple[int, ...] = (64, 128, 256, 512, 512)
    dim: int = 128
    heads: int = 4
    feedforward: int = 2048
    layers: int = 3
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.image_size < _SHRINK or self.image_size % _SHRINK:
            raise ValueError(f"image_size must be a multiple of {_SHRINK}, got {self.image_size}")
        if len(self.channels) != 5 or min(self.channels) < 1 or self.channels[4] % 16:
            raise ValueError("channels must be five numbers, the last a multiple of 16")
        if min(self.dim, self.heads, self.feedforward, self.layers) < 1 or self.dim % self.heads:
            raise ValueError("dim must be a multiple of heads, and all of the transformer positive")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be 0 or more and below 1, got {self.dropout}")


def project(points: Tensor) -> Tensor:
    """Image positions (..., 2), -1..1 from the top left, of camera points (..., 3).

    Points outside are moved to the border, as in the published code.
    """
    ahead = points[..., 2:] + DISTANCE
    return (points[..., :2] * (2 * FOCAL) / ahead).clamp(-1, 1)


def sample(maps: Tensor, places: Tensor) -> Tensor:
    """Maps (B, C, H, W) at positions (B, N, 2) in -1..1: (B, N, C). Corners are pixel centres."""
    found = functional.grid_sample(
        maps, places[:, None], mode="bilinear", padding_mode="zeros", align_corners=True
    )
    return found[:, :, 0].transpose(1, 2)


class _Encoder(nn.Module):
    """Transformer layers over the tokens of a point; keys as in torch's `TransformerEncoder`."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.dim,
                config.heads,
                config.feedforward,
                dropout=config.dropout,
                batch_first=True,
            )
            for _ in range(config.layers)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """The result for the first of tokens (B, T, D): (B, D)."""
        for layer in self.layers[:-1]:
            tokens = layer(tokens)
        # The other tokens are not used any more, so the last layer only processes the first.
        last: Any = self.layers[-1]
        first = tokens[:, :1]
        attended = last.self_attn(first, tokens, tokens, need_weights=False)[0]
        first = last.norm1(first + last.dropout1(attended))
        hidden = last.linear2(last.dropout(last.activation(last.linear1(first))))
        return last.norm2(first + last.dropout2(hidden))[:, 0]


class SliceField(nn.Module):
    """The part that both networks share: from features of twelve slices to a point's distance."""

    config: NetworkConfig
    att_decoder: _Encoder
    fc_out: nn.Sequential

    def slice_token(self) -> nn.Linear:
        """The first linear layer, for the features of all stages."""
        raise NotImplementedError

    def finish_token(self, tokens: Tensor) -> Tensor:
        """The layers after `slice_token`."""
        raise NotImplementedError

    def point_token(self, points: Tensor) -> Tensor:
        """The first token (..., dim) of points (..., 3)."""
        raise NotImplementedError

    def distance(self, maps: Sequence[Tensor], points: Tensor) -> Tensor:
        """Signed distance (B, N) at camera points (B, N, 3); negative inside.

        maps : of each stage (12 B, C, H, W), by image and then by slice.
        """
        places = project(points).repeat_interleave(COUNT, dim=0)
        local = torch.cat([sample(stage, places) for stage in maps], dim=-1)
        return self._read(self.slice_token()(local), points)

    def tables(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """`maps` after the first linear layer, for `distance_by_tables`: (12 B, dim, H, W) each.

        That layer and bilinear interpolation are both linear, so their order does not matter. For
        many points it is faster to apply the layer first.
        """
        layer = self.slice_token()
        parts = layer.weight.split([stage.shape[1] for stage in maps], dim=1)
        tables = [
            functional.conv2d(stage, part[:, :, None, None])
            for stage, part in zip(maps, parts, strict=True)
        ]
        tables[0] += layer.bias[:, None, None]
        return tables

    def distance_by_tables(self, tables: Sequence[Tensor], points: Tensor) -> Tensor:
        """As `distance`, from the result of `tables`."""
        places = project(points).repeat_interleave(COUNT, dim=0)
        local = sample(tables[0], places)
        for table in tables[1:]:
            local += sample(table, places)
        return self._read(local, points)

    def _read(self, local: Tensor, points: Tensor) -> Tensor:
        """Distances from local (12 B, N, dim), the output of `slice_token`."""
        batch, count = points.shape[:2]
        local = local.unflatten(0, (batch, COUNT)).transpose(1, 2)  # (B, N, 12, dim)
        tokens = torch.cat([self.point_token(points)[:, :, None], self.finish_token(local)], dim=2)
        first = self.att_decoder(tokens.flatten(0, 1))
        return self.fc_out(first).view(batch, count)


class _Up(nn.Module):
    """Doubles the size, joins the encoder's features of that size and halves the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.up = nn.ConvTranspose2d(channels, half, kernel_size=2, stride=2)
        self.conv = nn.Module()
        self.conv.double_conv = nn.Sequential(
            nn.Conv2d(channels, half, 3, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
        )

    def forward(self, below: Tensor, skipped: Tensor) -> Tensor:
        joined = torch.cat([skipped, self.up(below)], dim=1)
        return self.conv.double_conv(joined)


class SliceGenerator(nn.Module):
    """Draws twelve pictures from an image: one encoder, and a decoder conditioned on the slice."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        channels = config.channels
        stages = vgg16_stages(channels)
        self.down1, self.down2, self.down3, self.down4, self.down5 = stages
        self.emds = nn.Embedding(COUNT, config.dim)
        deep = channels[4]
        self.trans_c = nn.Conv2d(deep + config.dim, deep, 1)
        widths = [deep >> step for step in range(4)]
        self.up1, self.up2, self.up3, self.up4 = (_Up(width) for width in widths)
        self.trans_up1, self.trans_up2, self.trans_up3, self.trans_up4 = (
            nn.Conv2d(skip, width // 2, 1)
            for skip, width in zip(reversed(channels[:4]), widths, strict=True)
        )
        self.outc = nn.Module()
        self.outc.conv = nn.Conv2d(widths[3] // 2, 3, 1)

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Features (12 B, C, H, W) of five stages, deepest first; slices (B, 12, 3, S, S)."""
        *skips, deepest = features(
            (self.down1, self.down2, self.down3, self.down4, self.down5), images
        )
        batch, _, height, width = deepest.shape
        which = self.emds.weight[:, :, None, None].expand(-1, -1, height, width)
        current = self.trans_c(
            torch.cat([_for_each_slice(deepest), which.repeat(batch, 1, 1, 1)], dim=1)
        )
        found = [current]
        ups = (self.up1, self.up2, self.up3, self.up4)
        projections = (self.trans_up1, self.trans_up2, self.trans_up3, self.trans_up4)
        for up, projection, skip in zip(ups, projections, reversed(skips), strict=True):
            current = up(current, _for_each_slice(projection(skip)))
            found.append(current)
        slices = torch.tanh(self.outc.conv(current))
        return found, slices.unflatten(0, (batch, COUNT))


class SliceNet(SliceField):
    """An image to its slices and its signed distance field: the regression branch."""

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworkConfig()
        self.slices_generator = SliceGenerator(config)
        self.att_decoder = _Encoder(config)
        self.fc_p = nn.Linear(3, config.dim)
        deep = config.channels[4]
        self.fc_s = nn.Linear(deep + sum(deep >> step for step in range(1, 5)), config.dim)
        self.fc_out = nn.Sequential(nn.Linear(config.dim, 1))

    def encode(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Maps for `distance`, and the slices (B, 12, 3, S, S), of images (B, 3, S, S)."""
        return self.slices_generator(images)

    def slice_token(self) -> nn.Linear:
        """See `SliceField`."""
        return self.fc_s

    def finish_token(self, tokens: Tensor) -> Tensor:
        """See `SliceField`."""
        return tokens

    def point_token(self, points: Tensor) -> Tensor:
        """See `SliceField`."""
        return self.fc_p(points)


class _SliceEncoder(nn.Module):
    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        stages = vgg16_stages(config.channels)
        self.conv1_2, self.conv2_2, self.conv3_3, self.conv4_3, self.conv5_3 = stages

    def forward(self, images: Tensor) -> list[Tensor]:
        stages = (self.conv1_2, self.conv2_2, self.conv3_3, self.conv4_3, self.conv5_3)
        return features(stages, images)


class GTSliceNet(SliceField):
    """Twelve slices to their signed distance field: the second step of the generation branch."""

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworkConfig()
        dim = config.dim
        self.img_encoder = _SliceEncoder(config)
        self.att_decoder = _Encoder(config)
        self.pts_feat_extractor = nn.Sequential(
            nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, dim), nn.ReLU()
        )
        self.fc_local = nn.Sequential(
            nn.Linear(sum(config.channels), dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU()
        )
        self.fc_out = nn.Sequential(nn.Linear(dim, 1))

    def encode(self, slices: Tensor) -> list[Tensor]:
        """Maps for `distance` of slices (B, 12, 3, S, S)."""
        return self.img_encoder(slices.flatten(0, 1))

    def slice_token(self) -> nn.Linear:
        """See `SliceField`."""
        first = self.fc_local[0]
        assert isinstance(first, nn.Linear)
        return first

    def finish_token(self, tokens: Tensor) -> Tensor:
        """See `SliceField`."""
        return self.fc_local[1:](tokens)

    def point_token(self, points: Tensor) -> Tensor:
        """See `SliceField`."""
        return self.pts_feat_extractor(points)


def _for_each_slice(images: Tensor) -> Tensor:
    return images.repeat_interleave(COUNT, dim=0)
