"""Training samples that are cast on the fly, without a stored dataset.

Sample i depends only on the seed and i.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from xray_addon.pictures.shading import Lights, shade
from xray_addon.surface import Surface

from ..meshes.collection import MeshCache, Source
from ..training.numbered import Numbered
from ..training.views import TrainingView, random_frame, to_frames, view_object


class Pairs(Numbered):
    """Endless samples {image (4, I, I) RGBA 0..1, frames (L, 8, S, S), pose (3,)}.

    pose : the camera's elevation and roll, see `networks.base.Prediction`, and its horizontal field
    of view; radians.

    Samples 2 i and 2 i + 1 are mirror images. batch : size of the loader's batches. first_batch,
    batch_step : use every `batch_step`th batch, starting at `first_batch`.
    """

    def __init__(self, batch: int, first_batch: int = 0, batch_step: int = 1) -> None:
        super().__init__(first_batch, batch_step)
        self.batch_pairs = batch // 2

    def chunk(self, number: int) -> Iterator[dict[str, torch.Tensor]]:
        """The samples of batch `number`."""
        for pair in range(number * self.batch_pairs, (number + 1) * self.batch_pairs):
            yield from self.pair(pair)

    def pair(self, number: int) -> Iterator[dict[str, torch.Tensor]]:
        """The two samples of pair `number`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Variety:
    """How random samples differ from the meshes as they are.

    one_color_share : see `choose_object`. roll : standard deviation of the camera's, radians.
    stretch, pairs : see `new_shape`. farthest : see `views.random_frame`.
    """

    one_color_share: float = 1.0
    roll: float = 0.0
    stretch: float = 0.0
    pairs: int = 1
    farthest: float = 1.0


AS_THEY_ARE = Variety()


class CastDataset(Pairs):
    """Samples cast on the fly. The two of a pair share one cast, but each has its own lights."""

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
    ) -> None:
        super().__init__(batch, first_batch, batch_step)
        self.variety = variety
        self.meshes = MeshCache(files)
        self.seed = seed
        self.layers = layers
        self.resolution = resolution
        self.image_resolution = image_resolution

    def pair(self, number: int) -> Iterator[dict[str, torch.Tensor]]:
        """The two samples of pair `number`."""
        random = np.random.default_rng([self.seed, number])
        view = None
        while view is None:
            chosen = choose_object(self.meshes, random, self.variety.one_color_share)
            shape = new_shape(random, self.variety, number)
            view = view_object(
                self.meshes.surface(chosen).transformed(shape),
                random,
                layers=self.layers,
                resolution=self.resolution,
                image_resolution=self.image_resolution,
                roll=self.variety.roll,
                frame=random_frame(random, self.variety.farthest),
            )
        _recolor(view, random)
        size = self.resolution
        frames = to_frames(view.xray, view.camera.resized(size, size))
        for mirrored in (False, True):
            image = shade(view.fine, view.camera, Lights.random(view.camera, random))
            image = photograph(image, random)
            pose = (view.elevation, view.roll, view.camera.fov_x)
            yield training_sample(image, frames, pose, mirrored=mirrored)


def choose_object(meshes: MeshCache, random: np.random.Generator, one_color_share: float) -> int:
    """The number of a random mesh. Meshes of one flat colour are accepted only with probability
    `one_color_share`."""
    number = meshes.choose(random)
    if one_color_share < 1:
        while is_one_color(meshes.surface(number)) and random.random() > one_color_share:
            number = meshes.choose(random)
    return number


def is_one_color(surface: Surface) -> bool:
    """Whether `surface` has a single colour."""
    if any(material.texture is not None for material in surface.materials):
        return False
    colors = surface.corner_colors
    if colors is not None and np.ptp(colors.reshape(-1, 3), axis=0).max(initial=0) > 0.02:
        return False
    return len({material.base_color for material in surface.materials}) <= 1


def new_shape(random: np.random.Generator, variety: Variety, pair: int) -> NDArray[np.float64]:
    """The matrix (4, 4) that stretches an object along its three axes, or leaves it as it is.

    The factors' logarithms have the standard deviation `variety.stretch`. The share of stretched
    objects falls from a half in the first `pair` to none in pair `variety.pairs`, so that a run
    ends with objects as they are.
    """
    matrix = np.eye(4)
    if variety.stretch and random.random() < 0.5 * (1 - pair / variety.pairs):
        matrix[range(3), range(3)] = np.exp(random.normal(0, variety.stretch, size=3))
    return matrix


def training_sample(
    image: NDArray[np.float32],
    frames: NDArray[np.float32],
    pose: tuple[float, float, float],
    *,
    mirrored: bool,
) -> dict[str, torch.Tensor]:
    """An image (I, I, 4), frames (L, 8, S, S) and a pose as tensors, mirrored if requested."""
    if mirrored:
        image, frames = image[:, ::-1], frames[..., ::-1].copy()
        frames[:, 1] *= -1
        pose = (pose[0], -pose[1], pose[2])
    return {
        "image": torch.from_numpy(np.moveaxis(image, -1, 0).copy()),
        "frames": torch.from_numpy(frames.copy()),
        "pose": torch.tensor(pose, dtype=torch.float32),
    }


def _recolor(view: TrainingView, random: np.random.Generator) -> None:
    """Change the colours of half of the objects: permute the channels, with a gamma for each."""
    order, gamma = new_colors(random)
    for xray in (view.xray, view.fine):
        xray.hit_color = (xray.hit_color[:, order] ** gamma).astype(np.float32)


def new_colors(random: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The permutation (3,) of the colour channels and their gammas (3,); for half of the objects
    both are the identity."""
    if random.random() < 0.5:
        return np.arange(3), np.ones(3)
    return random.permutation(3), np.exp(random.normal(0, 0.3, size=3))


def photograph(image: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """Add the defects of a photo and its matting to a clean picture: blur, exposure, noise."""
    if random.random() < 0.7:
        # A 3x3 binomial blur of the premultiplied picture, like antialiasing.
        premultiplied = np.concatenate([image[..., :3] * image[..., 3:], image[..., 3:]], axis=-1)
        padded = np.pad(premultiplied, ((1, 1), (1, 1), (0, 0)), mode="edge")
        rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
        soft = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16
        color = soft[..., :3] / np.maximum(soft[..., 3:], 1e-4)
        image = np.concatenate([color, soft[..., 3:]], axis=-1)
    color = image[..., :3] ** np.exp(random.normal(0, 0.15)) * random.uniform(0.85, 1.15)
    color = color + random.normal(0, random.uniform(0, 0.02), size=color.shape)
    return np.concatenate([np.clip(color, 0, 1), image[..., 3:]], axis=-1, dtype=np.float32)
