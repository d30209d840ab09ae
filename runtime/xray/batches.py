"""Training samples that are cast and lit in torch, a batch at a time, on the training device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from xray_addon.camera import Camera
from xray_addon.canonical import FAR, NEAR, canonical_camera, change_of_depths, place
from xray_addon.pictures.shading import Lights

from ..meshes.collection import MeshCache, Source
from ..training.batch_casting import Layers, MeshBank, cast_batch, shade_batch
from ..training.views import MAX_ELEVATION, MIN_ELEVATION, random_frame
from .data import AS_THEY_ARE, Pairs, Variety, choose_object, new_colors, new_shape, photograph
from .sampling import mirrored


class BatchDataset(Pairs):
    """The samples of `CastDataset` as whole batches on `device`, for a loader without workers and
    batch size."""

    whole_batches = True

    def __init__(
        self,
        files: Sequence[Source],
        *,
        seed: int,
        layers: int,
        resolution: int,
        image_resolution: int,
        batch: int,
        first_batch: int = 0,
        batch_step: int = 1,
        variety: Variety = AS_THEY_ARE,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(batch, first_batch, batch_step)
        self.meshes = MeshCache(files)
        self.bank = MeshBank([self.meshes.surface(n) for n in range(len(files))], device)
        self.variety = variety
        self.seed = seed
        self.layers = layers
        self.resolution = resolution
        self.image_resolution = image_resolution

    def chunk(self, number: int) -> Iterator[dict[str, Tensor]]:
        """Yield batch `number`."""
        yield self.batch(number)

    def batch(self, number: int) -> dict[str, Tensor]:
        """Batch `number`: {image (B, 4, I, I), frames (B, L, 8, S, S), pose (B, 3)}."""
        first = number * self.batch_pairs
        randoms = [
            np.random.default_rng([self.seed, pair])
            for pair in range(first, first + self.batch_pairs)
        ]
        views = [self._view(random, pair) for pair, random in enumerate(randoms, first)]
        numbers, to_cameras, cameras, poses = zip(*views, strict=True)
        objects = torch.tensor(numbers, device=self.bank.device)
        matrices = torch.from_numpy(np.stack(to_cameras)).to(self.bank.device)
        pose = self._tensor(poses)
        fov_x = pose[:, 2]
        order, gamma = zip(*(new_colors(random) for random in randoms), strict=True)
        colors = self._tensor(order).long(), self._tensor(gamma)
        deep, fine = (
            _recolored(
                cast_batch(self.bank, objects, matrices, fov_x=fov_x, size=size, layers=layers),
                *colors,
            )
            for size, layers in ((self.resolution, self.layers), (self.image_resolution, 1))
        )
        size = self.resolution
        frames = to_frames(deep, [camera.resized(size, size) for camera in cameras])
        pictures = []
        for _ in range(2):
            lights = [Lights.random(c, r) for c, r in zip(cameras, randoms, strict=True)]
            images = shade_batch(
                fine,
                self._tensor([light.up for light in lights]),
                self._tensor([light.sky for light in lights]),
                self._tensor([light.ground for light in lights]),
                self._tensor([light.strengths @ light.directions for light in lights]),
                fov_x=fov_x,
            )
            clean = images.movedim(1, -1).cpu().numpy()
            taken = [photograph(i, r) for i, r in zip(clean, randoms, strict=True)]
            pictures.append(self._tensor(taken).movedim(-1, 1))
        return {
            "image": torch.stack([pictures[0], pictures[1].flip(-1)], dim=1).flatten(0, 1),
            "frames": torch.stack([frames, mirrored(frames)], dim=1).flatten(0, 1),
            "pose": torch.stack([pose, pose * pose.new_tensor([1, -1, 1])], dim=1).flatten(0, 1),
        }

    def _view(
        self, random: np.random.Generator, pair: int
    ) -> tuple[int, np.ndarray, Camera, tuple[float, float, float]]:
        """An object's number, the matrix from it to the camera's axes, the camera at the image's
        resolution, and the pose."""
        while True:
            number = choose_object(self.meshes, random, self.variety.one_color_share)
            shape = new_shape(random, self.variety, pair)
            surface = self.meshes.surface(number).transformed(shape)
            frame = random_frame(random, self.variety.farthest)
            azimuth = random.uniform(0, 2 * math.pi)
            elevation = random.uniform(MIN_ELEVATION, MAX_ELEVATION)
            roll = random.normal(0, self.variety.roll) if self.variety.roll else 0.0
            placed = place(surface, azimuth, elevation, roll=roll, frame=frame)
            if placed is not None:
                camera = frame.camera(self.image_resolution, elevation)
                matrix = camera.world_to_camera @ placed[0] @ shape
                return number, matrix, camera, (elevation, roll, camera.fov_x)

    def _tensor(self, values: object) -> Tensor:
        return torch.tensor(np.array(values), dtype=torch.float32, device=self.bank.device)


def _recolored(layers: Layers, order: Tensor, gamma: Tensor) -> Layers:
    """Channels swapped by `order` (B, 3), each with its `gamma` (B, 3)."""
    order, gamma = (values[:, None, None, None] for values in (order, gamma))
    return replace(layers, color=layers.color.gather(-1, order.expand_as(layers.color)) ** gamma)


def to_frames(layers: Layers, cameras: Sequence[Camera]) -> Tensor:
    """As `views.to_frames`: (B, L, 8, S, S). cameras : of the B views."""
    hit = (layers.depth > 0).float()[..., None]
    pixels = np.indices(layers.depth.shape[2:])
    other = canonical_camera(len(pixels[0]))
    changes = np.stack([change_of_depths(camera, other, *pixels) for camera in cameras], axis=1)
    factor, offset = torch.from_numpy(changes).to(layers.depth)[:, :, None]
    depth = layers.depth * factor + offset
    depth = ((depth[..., None] - NEAR) / (FAR - NEAR) * 2 - 1).clamp(-1, 1)
    values = torch.cat([depth, layers.normal, layers.color * 2 - 1], dim=-1) * hit
    return torch.cat([values, hit * 2 - 1], dim=-1).movedim(-1, 2)
