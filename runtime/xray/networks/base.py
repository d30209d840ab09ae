"""What all networks share: configuration, prediction, base class and building blocks.

Every network predicts clean frames (`Network`). With `time` 0 and no frames, it is a
regression of all layers. With frames, it predicts the hidden layers from the clean visible layer
and noised hidden ones, x = time * clean + (1 - time) * noise. This is the denoiser of flow matching
(Lipman et al. 2023) in its clean-data form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from xray_addon.canonical import FOV_X

from ...torch_helpers.attention import attend
from ...torch_helpers.convolution import convolve
from ...torch_helpers.parameters import normal_parameter

LENS_FEATURES = 2
CHANNELS = 8  # depth, normal x y z, red green blue, hit


@dataclass(frozen=True)
class NetworkConfig:
    """The configuration of a network, for `make_network`.

    network : "stacked" (`XRayPredictor`) or "video" (`VideoPredictor`, the paper's).
    layers, resolution : L and S of the frames. image_resolution : of the image, a multiple of S.
    channels, blocks : of each level of the U-Net, finest first. fold : side of the square of pixels
        that is folded into one cell of the finest level. frame_features : channels for the noised
        frames. lens : whether the network is told the camera's field of view; otherwise it takes
        every image for one of the canonical camera's.

    Raises ValueError for an impossible combination.
    """

    network: str = "stacked"
    layers: int = 8
    resolution: int = 64
    image_resolution: int = 128
    channels: tuple[int, ...] = (96, 224, 288)
    blocks: tuple[int, ...] = (2, 2, 3)
    fold: int = 2
    frame_features: int = 32
    lens: bool = False

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise ValueError(f"network must be one of {NETWORKS}, got {self.network!r}")
        if len(self.channels) != len(self.blocks):
            raise ValueError("channels and blocks must be of one length, that of the levels")
        if self.lens and self.network != "stacked":
            raise ValueError("only the stacked network can be told the lens")
        step = self.fold * 2 ** (len(self.channels) - 1)
        if self.resolution % step or self.image_resolution % self.resolution:
            raise ValueError(
                f"resolution must be a multiple of {step} and divide image_resolution, got "
                f"{self.resolution} and {self.image_resolution}"
            )


NETWORKS = ("stacked", "video")


@dataclass(frozen=True, eq=False)
class Prediction:
    """The output of a network.

    frames : (B, L, 8, S, S). Depth from -1 (near) to 1 (far), normal in camera space (not of
        unit length), colour from -1 to 1, and the logit of there being a hit.
    pose : (B, 2) the camera's elevation above the object's horizon and its roll, positive if the
        object leans to the left in the image; radians.
    """

    frames: Tensor
    pose: Tensor

    def clean(self) -> Tensor:
        """The frames with hits from -1 to 1 instead of logits, as sampling noises them."""
        head, hit = self.frames[:, :, :7], self.frames[:, :, 7:]
        hit = torch.tanh(hit / 2)
        return torch.cat([head * (hit > 0), hit], dim=2)


class Network(nn.Module):
    """Base class of the networks: `forward(image, frames, time, fov_x)`; see `XRayPredictor`.

    features : from which the pose is predicted.
    """

    def __init__(self, config: NetworkConfig, features: int) -> None:
        super().__init__()
        self.config = config
        self.pose_out = nn.Linear(features, 2)
        nn.init.zeros_(self.pose_out.weight)
        nn.init.zeros_(self.pose_out.bias)
        self.frame_shape = (config.layers, CHANNELS, config.resolution, config.resolution)

    def pose(self, features: Tensor) -> Tensor:
        """The pose (B, 2) from features (B, F); see `Prediction`."""
        pose: Tensor = self.pose_out(features).float()
        return pose

    def kernels(self) -> list[nn.Parameter]:
        """The parameters that Muon trains: the inner weight matrices and convolution kernels."""
        raise NotImplementedError

    def lens_parameters(self) -> list[nn.Parameter]:
        """The parameters that only an image of another than the canonical camera uses."""
        return []


class Convolution(nn.Module):
    """A convolution that keeps the size of its input.

    Its kernel is stored as a matrix (out, size * size * in). Muon orthogonalises this matrix, and
    it is the layout in which CPUs convolve fastest.
    """

    def __init__(self, inputs: int, outputs: int, size: int = 3, *, zero: bool = False) -> None:
        super().__init__()
        self.shape = (outputs, size, size, inputs)
        columns = size * size * inputs
        std = 0.0 if zero else 1 / math.sqrt(columns)
        self.weight = normal_parameter(outputs, columns, std=std)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, H, W)."""
        return convolve(x, self.weight.view(self.shape), self.bias)


class Norm(nn.LayerNorm):
    """Layer normalisation over the channels of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalised `x` (B, C, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """A residual block of two convolutions; it starts as the identity.

    lens : whether features of the lens scale and shift its channels; at first they change nothing.
    """

    def __init__(self, channels: int, *, lens: bool = False) -> None:
        super().__init__()
        self.norm = Norm(channels)
        self.first = Convolution(channels, channels)
        self.second = Convolution(channels, channels, zero=True)
        if lens:
            # Without a bias, so that the canonical camera, whose features are 0, changes nothing.
            self.lens = nn.Linear(LENS_FEATURES, 2 * channels, bias=False)
            nn.init.zeros_(self.lens.weight)

    def forward(self, x: Tensor, lens: Tensor | None = None) -> Tensor:
        """`x` (B, C, H, W) plus the block's residual. lens : from `lens_features`."""
        inner = self.norm(x)
        if lens is not None:
            scale, shift = self.lens(lens)[..., None, None].chunk(2, dim=1)
            inner = inner * (1 + scale) + shift
        return x + self.second(functional.relu(self.first(inner)))


class Stage(nn.Sequential):
    """A sequence of modules; its `Block`s get the features of the lens."""

    def forward(self, x: Tensor, lens: Tensor | None = None) -> Tensor:
        """`x` (B, C, H, W) after all modules."""
        for module in self:
            x = module(x, lens) if isinstance(module, Block) else module(x)
        return x


class Attention(nn.Module):
    """Residual self-attention between all pixels; it starts as the identity."""

    def __init__(self, channels: int, head_channels: int = 32) -> None:
        super().__init__()
        self.heads = channels // head_channels
        self.norm = Norm(channels)
        self.to_qkv = Convolution(channels, 3 * channels, 1)
        self.to_out = Convolution(channels, channels, 1, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (B, C, H, W) plus the attention's residual."""
        return x + self.to_out(attend(self.to_qkv(self.norm(x)), self.heads))


def lens_features(fov_x: Tensor) -> Tensor:
    """Features (B, 2) of fields of view (B,), radians; 0 for that of the canonical camera.

    How often the distance of the canonical camera is doubled, and the square of that.
    """
    doubled = torch.log2(math.tan(FOV_X / 2) / torch.tan(fov_x / 2)).clamp(min=0)
    return torch.stack([doubled, doubled**2], dim=1)


def image_to_input(rgba: Tensor) -> Tensor:
    """The network's image input (B, 4, I, I) from RGBA (B, 4, I, I), straight alpha, 0..1."""
    alpha = rgba[:, 3:]
    return torch.cat([rgba[:, :3] * alpha, alpha], dim=1) * 2 - 1
