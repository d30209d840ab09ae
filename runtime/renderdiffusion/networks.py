"""The denoiser: a noisy picture becomes three feature planes, and these a clean picture.

The encoder does not get the camera: it finds the object's pose in the picture. If noise hides the
pose, the field must look right from everywhere; that makes it 3D.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from xray_addon.camera import Camera
from xray_addon.systems.renderdiffusion import FRAME

from ..torch_helpers.memory import Chunks
from ..torch_helpers.rays import camera_rays
from .occupancy import Occupancy
from .renderer import check_outside, render_rays
from .triplane import FieldDecoder, plane_features
from .unet import UNet

RAYS = 1 << 14  # that are rendered at a time


@dataclass(frozen=True)
class RenderDiffusionConfig:
    """The configuration of a model.

    image_size : px of the pictures, and texels per side of the planes. channels, blocks, fold : of
    the U-Net. plane_channels : features of each plane. hidden : neurons of the decoder.
    self_condition : whether the U-Net also gets its last estimate. box : the field is within
    [-box, box]^3 of the object's frame. background : colour behind the object, 0..1. samples,
    fine_samples : along a ray, see `renderer.render_rays`.

    Raises ValueError for an invalid configuration.
    """

    image_size: int = 32
    channels: tuple[int, ...] = (96, 224)
    blocks: tuple[int, ...] = (2, 4)
    fold: int = 2
    plane_channels: int = 16
    hidden: int = 32
    self_condition: bool = False
    box: float = 0.62
    background: tuple[float, ...] = (1.0, 1.0, 1.0)
    samples: int = 24
    fine_samples: int = 24

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.blocks) or not self.channels:
            raise ValueError("channels and blocks must be of one length, that of the levels")
        if any(c < 32 or c % 32 for c in self.channels) or min(self.blocks) < 0:
            raise ValueError(f"channels must be multiples of 32, got {self.channels}")
        step = self.fold * 2 ** (len(self.channels) - 1)
        if self.image_size < step or self.image_size % step:
            raise ValueError(f"image_size must be a multiple of {step}, got {self.image_size}")
        if min(self.plane_channels, self.hidden, self.samples) < 1 or self.fine_samples < 0:
            raise ValueError("plane_channels, hidden and samples must be 1 or more")
        if not 0 < self.box < FRAME.distance:
            raise ValueError(f"box must be above 0 and below {FRAME.distance}, got {self.box}")
        if len(self.background) != 3 or not all(0 <= c <= 1 for c in self.background):
            raise ValueError(f"background must be three numbers from 0 to 1: {self.background}")

    def camera(self, azimuth: float, elevation: float, size: int = 0) -> Camera:
        """A camera of the system's frame, in the object's frame; angles in radians.

        azimuth : 0 is the -y side, increasing towards +x. size : px; 0 for `image_size`.
        """
        level = math.cos(elevation)
        eye = np.array([level * math.sin(azimuth), -level * math.cos(azimuth), math.sin(elevation)])
        size = size or self.image_size
        return Camera.look_at(FRAME.distance * eye, fov_x=FRAME.fov_x, width=size, height=size)


@dataclass(frozen=True, eq=False)
class Rendered:
    """Pictures of B scenes: color (B, 3, S, S) 0..1 in front of the background, alpha
    (B, 1, S, S) 0..1 and depth (B, 1, S, S), the distance of the visible surface, 0 if none."""

    color: Tensor
    alpha: Tensor
    depth: Tensor


class RenderDiffusion(nn.Module):
    """See the module's docstring."""

    def __init__(self, config: RenderDiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = UNet(
            6 if config.self_condition else 3,
            3 * config.plane_channels,
            size=config.image_size,
            channels=config.channels,
            blocks=config.blocks,
            fold=config.fold,
        )
        self.decoder = FieldDecoder(config.plane_channels, config.hidden)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.decoder.first.weight.device

    @property
    def background(self) -> Tensor:
        """(3,) 0..1."""
        return torch.tensor(self.config.background, device=self.device)

    def planes(self, noisy: Tensor, time: Tensor, self_condition: Tensor | None = None) -> Tensor:
        """Feature planes (B, 3, C, N, N) of noisy pictures (B, 3, S, S); clean pictures are -1..1.

        time : (B,) steps of noise, 0 (clean) to 1000. self_condition : the last estimate of the
        clean pictures (B, 3, S, S), -1..1; only used by a model with `self_condition`.
        """
        if self.config.self_condition:
            known = torch.zeros_like(noisy) if self_condition is None else self_condition
            noisy = torch.cat([noisy, known], dim=1)
        planes: Tensor = self.encoder(noisy, time).float()
        return planes.unflatten(1, (3, -1))

    def field(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Density (B, P) per unit of length and colour (B, P, 3) 0..1 at points (B, P, 3).

        The density is 0 outside the box.
        """
        density, color = self.decoder(plane_features(planes, points, self.config.box))
        inside = (points.abs() <= self.config.box).all(dim=-1)
        return density * inside, color

    def occupancy(self, planes: Tensor) -> Occupancy:
        """The parts of the field of one scene (1, 3, C, N, N) that may have density."""
        return Occupancy.of(
            lambda points: self.field(planes, points[None])[0][0], self.config.box, self.device
        )

    def render(
        self,
        planes: Tensor,
        cameras: Sequence[Camera],
        size: int = 0,
        *,
        chunks: Chunks | None = None,
        skip_empty: bool = False,
    ) -> Rendered:
        """Pictures of B scenes by one camera each, or of one scene by several cameras.

        size : px; 0 for the model's. chunks : rays at a time. skip_empty : first find empty parts,
        which is faster for large pictures and for several of one scene.

        Raises XRayError `camera_inside`, `out_of_memory`.
        """
        config = self.config
        size = size or config.image_size
        chunks = chunks or Chunks(RAYS)
        check_outside(cameras, config.box)
        shared = self.occupancy(planes) if skip_empty and len(planes) == 1 else None
        pictures = []
        for number, camera in enumerate(cameras):
            scene = planes if len(planes) == 1 else planes[number : number + 1]
            occupied = shared or (self.occupancy(scene) if skip_empty else None)
            origins, directions = camera_rays([camera], size, self.device)
            rays = torch.cat([origins[0], directions[0]], dim=-1)

            def work(part: Tensor, scene: Tensor = scene, occupied: Any = occupied) -> Tensor:
                seen = render_rays(
                    partial(self.field, scene),
                    part[None, :, :3],
                    part[None, :, 3:],
                    box=config.box,
                    background=self.background,
                    samples=config.samples,
                    fine_samples=config.fine_samples,
                    occupied=occupied,
                )
                return torch.cat([seen.color, seen.alpha[..., None], seen.depth[..., None]], -1)[0]

            pictures.append(chunks(work, rays).T.unflatten(1, (size, size)))
        joined = torch.stack(pictures)
        return Rendered(joined[:, :3], joined[:, 3:4], joined[:, 4:])


def to_network(picture: Tensor) -> Tensor:
    """Colours 0..1 to the network's -1..1."""
    return picture * 2 - 1


def to_picture(clean: Tensor) -> Tensor:
    """The network's -1..1 to colours 0..1."""
    return ((clean + 1) / 2).clamp(0, 1)


def at_size(model: RenderDiffusion, image_size: int) -> RenderDiffusion:
    """The same network for another picture size; its learned positions are interpolated."""
    resized = RenderDiffusion(replace(model.config, image_size=image_size))
    state = model.state_dict()
    for name, wanted in resized.state_dict().items():
        if state[name].shape != wanted.shape:
            state[name] = functional.interpolate(
                state[name], wanted.shape[-2:], mode="bilinear", align_corners=False
            )
    resized.load_state_dict(state)
    return resized.to(model.device)
