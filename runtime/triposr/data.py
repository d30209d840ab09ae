"""Training samples for TripoSR, cast on the fly: a picture, and patches of other views.

Sample i depends only on the seed and i.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from xray_addon.camera import Camera
from xray_addon.casting import cast
from xray_addon.errors import XRayError
from xray_addon.pictures.shading import Lights, reduce_image, shade, to_bytes
from xray_addon.surface import Surface

from ..meshes.collection import MeshCache, MeshFile
from ..torch_helpers.rays import camera_rays
from ..training.numbered import Numbered
from . import field
from .preparation import prepare

# Longest side of an object in the field's box. It then fits the box and the images from any side.
OBJECT_SIZE = 1.1
INPUT_ELEVATION = math.radians(30)  # maximum for the model's input picture
VIEW_ELEVATION = math.radians(60)  # maximum, up or down, for the compared views
# Lights under which a picture shows the unlit colours.
_UNLIT = Lights(1.0, 1.0, np.array([0.0, 0, 1]), np.zeros((0, 3)), np.zeros(0))


@dataclass(frozen=True)
class PairConfig:
    """Sizes in px. views : number of compared views of view_size, each cropped to patch_size."""

    image_size: int
    views: int
    view_size: int
    patch_size: int


class PairDataset(Numbered):
    """Endless samples {image (3, I, I), origins, directions, color (V, P, P, 3), alpha (V, P, P)}.

    image : randomly lit, on grey, from a camera at a random elevation; the object is turned so
    that this camera is above +x. The views show unlit colours on white, so that the model learns
    colours without lighting. Rays are in the field's axes. batch : the loader's batch size.
    """

    def __init__(
        self,
        files: list[MeshFile],
        config: PairConfig,
        *,
        seed: int,
        batch: int = 1,
        first_batch: int = 0,
    ) -> None:
        super().__init__(first_batch)
        self.meshes = MeshCache(files)
        self.config = config
        self.seed = seed
        self.batch = batch

    def chunk(self, number: int) -> Iterator[dict[str, torch.Tensor]]:
        """The samples of batch `number`."""
        for sample in range(number * self.batch, (number + 1) * self.batch):
            yield self.sample(sample)

    def sample(self, number: int) -> dict[str, torch.Tensor]:
        """Sample `number`."""
        random = np.random.default_rng([self.seed, number])
        image = None
        while image is None:
            surface = place(self.meshes.draw(random), random.uniform(0, 2 * math.pi))
            image = self._picture(surface, random)
        patches = [self._patch(surface, random) for _ in range(self.config.views)]
        return {"image": image} | {
            name: torch.stack([patch[name] for patch in patches]) for name in patches[0]
        }

    def _picture(self, surface: Surface, random: np.random.Generator) -> torch.Tensor | None:
        """The model's input (3, I, I), or None if the object is not visible."""
        size = self.config.image_size
        camera = field.orbit_camera(0.0, random.uniform(0, INPUT_ELEVATION), size)
        rgba = _render(surface, camera, Lights.random(camera, random))
        try:
            prepared = prepare(to_bytes(rgba))
        except XRayError:
            return None
        picture = torch.from_numpy(prepared).permute(2, 0, 1)[None].float() / 255
        return functional.interpolate(picture, (size, size), mode="bilinear", antialias=True)[0]

    def _patch(self, surface: Surface, random: np.random.Generator) -> dict[str, torch.Tensor]:
        """A patch of a random view, mostly on the object."""
        size, patch = self.config.view_size, self.config.patch_size
        azimuth = random.uniform(0, 2 * math.pi)
        camera = field.orbit_camera(azimuth, random.uniform(-VIEW_ELEVATION, VIEW_ELEVATION), size)
        rgba = _render(surface, camera, _UNLIT)
        seen = np.argwhere(rgba[..., 3] > 0)
        middle = seen[random.integers(len(seen))] if len(seen) else np.array([size, size]) // 2
        row, column = np.clip(middle - random.integers(0, patch, size=2), 0, size - patch).tolist()
        rays = camera_rays([camera], size, torch.device("cpu"))
        origins, directions = (of_all[0].unflatten(0, (size, size)) for of_all in rays)
        window = (slice(row, row + patch), slice(column, column + patch))
        alpha = torch.from_numpy(rgba[window][..., 3].copy())
        color = torch.from_numpy(rgba[window][..., :3].copy())
        return {
            "origins": origins[window].contiguous(),
            "directions": directions[window].contiguous(),
            "color": color * alpha[..., None] + 1 - alpha[..., None],
            "alpha": alpha,
        }


def place(surface: Surface, azimuth: float) -> Surface:
    """`surface` (z up) scaled into the field's box and turned about z by `azimuth` (radians)."""
    cosine, sine = math.cos(azimuth), math.sin(azimuth)
    matrix = np.diag([OBJECT_SIZE, OBJECT_SIZE, OBJECT_SIZE, 1.0])
    matrix[:2, :2] = OBJECT_SIZE * np.array([[cosine, -sine], [sine, cosine]])
    return surface.normalized().transformed(matrix)


def _render(surface: Surface, camera: Camera, lights: Lights) -> NDArray[np.float32]:
    """An antialiased picture (H, W, 4), straight alpha."""
    fine = camera.resized(2 * camera.width, 2 * camera.height)
    image = reduce_image(shade(cast(surface, fine, 1), fine, lights), 2)
    return np.asarray(image, dtype=np.float32)
