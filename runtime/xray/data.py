"""Training samples, cast on the fly: no dataset is stored.

Sample number i is a function of the seed and i alone, and batches are of neighbouring numbers
whatever the number of workers, so a run that resumes sees the batches it would have seen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from xray_addon.camera import Camera
from xray_addon.canonical import FOV_X, canonical_camera, place
from xray_addon.casting import cast
from xray_addon.pictures.shading import Lights, reduce_image, shade
from xray_addon.surface import Surface

from ..meshes.collection import MeshCache, MeshFile
from ..training.framing import canonical_frame
from ..training.views import View, to_frames, view_object
from .variety import (
    ELEVATION,
    FOV,
    MATERIAL_SHARE,
    ONE_COLOR_SHARE,
    SCENE_SHARE,
    SHAPE_SHARE,
    TILT,
    composed,
    compressed,
    is_one_color,
    matted,
    rounded,
    solid_texture,
)


def view_by_any_camera(
    surface: Surface,
    random: np.random.Generator,
    *,
    layers: int,
    resolution: int,
    image_resolution: int,
) -> View | None:
    """As `view_object`, by cameras as in photos: `variety` says which."""
    azimuth, elevation = random.uniform(0, 2 * math.pi), random.uniform(*ELEVATION)
    fov, tilt = random.uniform(*FOV), random.normal(0, TILT)
    placed = place(surface, azimuth, elevation)
    if placed is None:
        return None
    matrix, scale = placed
    moved = surface.transformed(matrix)
    # Nearer where more is seen, so that the object fills the image as before.
    eye = canonical_camera(2, elevation).position * math.tan(FOV_X / 2) / math.tan(fov / 2)
    up = (math.sin(tilt), 0.0, math.cos(tilt))
    camera = Camera.look_at(eye, (0, 0, 0), fov, image_resolution, image_resolution, up)
    xray = cast(moved, camera.resized(resolution, resolution), layers)
    frame = canonical_frame(xray, camera.resized(resolution, resolution))
    fine = cast(moved, camera, 1)
    if frame is None or not len(fine.index):
        return None
    return View(xray, fine, scale, frame.elevation, moved, camera, frame)


class Pairs(IterableDataset):
    """Endless samples {image (4, I, I) RGBA 0..1, frames (L, 8, S, S), elevation ()}.

    Samples come in mirrored pairs (2 i, 2 i + 1). batch : the loader's. first_batch, batch_step :
    from which on, and each how many-th.
    """

    def __init__(self, batch: int, first_batch: int = 0, batch_step: int = 1) -> None:
        self.batch_pairs = batch // 2
        self.first_batch = first_batch
        self.batch_step = batch_step

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        worker = get_worker_info()
        number, step = (worker.id, worker.num_workers) if worker else (0, 1)
        # The loader takes a batch of each worker in turn.
        first, step = self.first_batch + number * self.batch_step, step * self.batch_step
        for batch in itertools.count(first, step):
            for pair in range(batch * self.batch_pairs, (batch + 1) * self.batch_pairs):
                yield from self.pair(pair)

    def pair(self, number: int) -> Iterator[dict[str, torch.Tensor]]:
        """The two samples of pair `number`."""
        raise NotImplementedError


class CastDataset(Pairs):
    """Samples cast on the fly; those of a pair are of one cast, each with lights of its own.

    variety : some of `variety.VARIETIES`.
    """

    def __init__(
        self,
        files: list[MeshFile],
        *,
        seed: int,
        layers: int,
        resolution: int,
        image_resolution: int,
        batch: int,
        first_batch: int = 0,
        batch_step: int = 1,
        variety: tuple[str, ...] = (),
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
            view = self._view(self._object(random), random)
        if "materials" in self.variety and random.random() < MATERIAL_SHARE:
            _repattern(view, random)
        else:
            _recolor(view, random)
        xray = view.xray
        if view.frame is not None:
            xray = view.frame.resample(xray, self.layers, self.resolution)
        frames = to_frames(xray)
        for mirrored in (False, True):
            image = self._picture(view, random)
            yield training_sample(image, frames, view.elevation, mirrored=mirrored)

    def _object(self, random: np.random.Generator) -> Surface:
        """What is to be seen."""
        surface = self.meshes.draw(random)
        if "colors" in self.variety:
            while is_one_color(surface) and random.random() > ONE_COLOR_SHARE:
                surface = self.meshes.draw(random)
        if "scenes" in self.variety and random.random() < SCENE_SHARE:
            surface = composed(surface, self.meshes.draw(random), random)
        if "shapes" in self.variety and random.random() < SHAPE_SHARE:
            surface = rounded(surface, random)
        return surface

    def _view(self, surface: Surface, random: np.random.Generator) -> View | None:
        anyhow = "cameras" in self.variety
        finer = 2 if "photos" in self.variety else 1
        return (view_by_any_camera if anyhow else view_object)(
            surface,
            random,
            layers=self.layers,
            # What is resampled is cast finer.
            resolution=self.resolution * (2 if anyhow else 1),
            image_resolution=self.image_resolution * finer,
        )

    def _picture(self, view: View, random: np.random.Generator) -> NDArray[np.float32]:
        """The reference image (I, I, 4)."""
        size = self.image_resolution
        image = shade(view.fine, view.camera, Lights.random(view.camera, random))
        if view.frame is not None:
            pixels = torch.from_numpy(np.moveaxis(image, -1, 0).copy())
            image = view.frame.picture(pixels, size)
        elif len(image) > size:
            image = reduce_image(image, len(image) // size).astype(np.float32)
        image = photograph(image, random)
        if "photos" in self.variety:
            image = compressed(matted(image, random), random)
        return image


def training_sample(
    image: NDArray[np.float32], frames: NDArray[np.float32], elevation: float, *, mirrored: bool
) -> dict[str, torch.Tensor]:
    """An image (I, I, 4) and frames (L, 8, S, S), or both as a mirror shows them, as tensors."""
    if mirrored:
        image, frames = image[:, ::-1], frames[..., ::-1].copy()
        frames[:, 1] *= -1
    return {
        "image": torch.from_numpy(np.moveaxis(image, -1, 0).copy()),
        "frames": torch.from_numpy(frames.copy()),
        "elevation": torch.tensor(elevation, dtype=torch.float32),
    }


def _repattern(view: View, random: np.random.Generator) -> None:
    """The object gets the colours of a pattern in space."""
    texture = solid_texture(random)
    for xray in (view.xray, view.fine):
        _, height, width = xray.shape
        points = xray.points(view.camera.resized(width, height)).positions / view.scale
        xray.hit_color = texture(points).astype(np.float32)


def _recolor(view: View, random: np.random.Generator) -> None:
    """Half of the objects get other colours: channels swapped, each with its own gamma."""
    order, gamma = new_colors(random)
    for xray in (view.xray, view.fine):
        xray.hit_color = (xray.hit_color[:, order] ** gamma).astype(np.float32)


def new_colors(random: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """From which channel each one's values are to come, and each one's gamma; for half of the
    objects those that change nothing."""
    if random.random() < 0.5:
        return np.arange(3), np.ones(3)
    return random.permutation(3), np.exp(random.normal(0, 0.3, size=3))


def photograph(image: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """What a camera and a matting do to a clean picture: softness, exposure, noise."""
    if random.random() < 0.7:
        # A 3x3 binomial blur of the premultiplied picture, as antialiasing would do.
        premultiplied = np.concatenate([image[..., :3] * image[..., 3:], image[..., 3:]], axis=-1)
        padded = np.pad(premultiplied, ((1, 1), (1, 1), (0, 0)), mode="edge")
        rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
        soft = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16
        color = soft[..., :3] / np.maximum(soft[..., 3:], 1e-4)
        image = np.concatenate([color, soft[..., 3:]], axis=-1)
    color = image[..., :3] ** np.exp(random.normal(0, 0.15)) * random.uniform(0.85, 1.15)
    color = color + random.normal(0, random.uniform(0, 0.02), size=color.shape)
    return np.concatenate([np.clip(color, 0, 1), image[..., 3:]], axis=-1, dtype=np.float32)
