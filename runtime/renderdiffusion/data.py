"""Training samples: single pictures with their cameras, and random rays of them.

Reads our own datasets (images and transforms.json; X-Rays, depth and the grouping by object are not
used), tars of them, and folders of images whose cameras are only known by a distribution. All
pictures are kept in memory at the model's size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from xray_addon.camera import Camera
from xray_addon.errors import XRayError
from xray_addon.files.transforms import read_transforms

from ..images.reading import read_image
from ..training.datasets import XRayDataset
from ..training.numbered import Numbered
from .networks import RenderDiffusionConfig
from .renderer import check_outside

FEWEST = 8  # pictures needed for training
IMAGES = "images"
CAMERAS = "transforms.json"
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
_MIRROR = np.diag([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class CameraDistribution:
    """The distribution of unknown cameras: uniform in these ranges, degrees.

    azimuth : 0 sees the object's front, -y. elevation : above the horizon.
    """

    azimuth: tuple[float, float] = (-180.0, 180.0)
    elevation: tuple[float, float] = (0.0, 45.0)

    def draw(self, config: RenderDiffusionConfig, random: np.random.Generator) -> Camera:
        """A random camera in the system's frame."""
        return config.camera(
            math.radians(random.uniform(*self.azimuth)),
            math.radians(random.uniform(*self.elevation)),
        )


@dataclass(frozen=True, eq=False)
class Pictures:
    """pixels (N, S, S, 4) uint8, straight alpha, and their cameras, None if unknown."""

    pixels: NDArray[np.uint8]
    cameras: Sequence[Camera | None]

    def __len__(self) -> int:
        return len(self.cameras)


def read_pictures(data: Path, config: RenderDiffusionConfig) -> Pictures:
    """The pictures in `data`, reduced to the model's size; empty ones are left out.

    data : a dataset in the published layout, with or without xrays/; a tar of one or a folder of
    such tars; or a folder of images, optionally with a transforms.json for their cameras.

    Raises XRayError `no_data` for too few pictures, `bad_transforms` if a camera is missing,
    `camera_inside`, `unreadable_image` and `bad_shard`.
    """
    pixels, cameras = [], []
    for image, camera in _read(data, config.image_size):
        if image[..., 3].any():
            pixels.append(image)
            cameras.append(camera)
    if len(pixels) < FEWEST:
        found = f"{len(pixels)} pictures" if pixels else "no pictures"
        raise XRayError(
            "no_data",
            f"There are {found} in {data} in which something is to be seen; at least {FEWEST} are "
            "needed.",
            "Give a dataset with images/ in it, a .tar shard, or a folder of images.",
        )
    check_outside([camera for camera in cameras if camera is not None], config.box)
    return Pictures(np.stack(pixels), cameras)


def _read(data: Path, size: int) -> Iterator[tuple[NDArray[np.uint8], Camera | None]]:
    tars = sorted(data.glob("*.tar"))
    if tars or data.suffix in (".tar", ".jsonl") or (data / "xrays").is_dir():
        for view in XRayDataset(tars or data).views:
            image, camera = view.image(), view.camera(size, size)
            if image is None:
                continue
            if camera is None:
                raise _without_camera(data, f"{view.uid}/{view.number:03d}")
            pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            yield squared(Image.fromarray(pixels, "RGBA"), size), camera
    elif (data / IMAGES).is_dir():
        for folder in sorted(path for path in (data / IMAGES).iterdir() if path.is_dir()):
            for path, camera in _listed(folder, size):
                if camera is None:
                    raise _without_camera(data, f"{folder.name}/{path.stem}")
                yield squared(read_image(path), size), camera
    else:
        for path, camera in _listed(data, size):
            yield squared(read_image(path), size), camera


def _listed(folder: Path, size: int) -> Iterator[tuple[Path, Camera | None]]:
    """The images in a folder, with their cameras if a transforms.json lists any."""
    listed = folder / CAMERAS
    cameras = read_transforms(listed, size, size) if listed.is_file() else None
    for path in sorted(path for path in folder.glob("[!.]*") if path.suffix.lower() in _SUFFIXES):
        if cameras is not None and path.stem not in cameras:
            raise _without_camera(folder, path.stem)
        yield path, cameras[path.stem] if cameras else None


def _without_camera(data: Path, name: str) -> XRayError:
    return XRayError(
        "bad_transforms",
        f"{data} has no camera of the image {name}.",
        "Capture it again or remove the image. Images whose cameras nobody knows go into one "
        "folder without a transforms.json; then their cameras are drawn at random.",
    )


def squared(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """The central square of an image, resized to (size, size, 4)."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.convert("RGBA").crop((left, top, left + side, top + side))
    # Pillow takes alpha into account only if it is premultiplied.
    reduced = square.convert("RGBa").resize((size, size), Image.Resampling.BOX)
    return np.asarray(reduced.convert("RGBA"))


def on_background(
    pixels: NDArray[np.uint8], background: Sequence[float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Colours (N, S, S, 3) 0..1 in front of the background, and alpha (N, S, S)."""
    values = pixels.astype(np.float32) / 255
    alpha = values[..., 3:]
    color = values[..., :3] * alpha
    color += np.asarray(background, np.float32) * (1 - alpha)
    return color, alpha[..., 0]


def mirrored(camera: Camera) -> Camera:
    """The camera for the mirrored picture, which shows the mirrored object."""
    assert camera.cx is not None
    matrix = camera.camera_to_world.copy()
    matrix[:3, :3] = _MIRROR @ matrix[:3, :3] @ _MIRROR
    matrix[:3, 3] = _MIRROR @ matrix[:3, 3]
    width = camera.width
    return replace(
        camera, camera_to_world=matrix, cx=width - camera.cx + 2 * camera.pixel_offset - 1
    )


class PictureDataset(Numbered):
    """Endless batches of pictures, their cameras' rays and R random pixels of each for the loss.

    {image (B, 3, S, S) -1..1, alpha (B, S * S), origin (B, 1, 3), directions (B, S * S, 3), pixel
    (B, R)}. mirror : share of the pictures that are mirrored in x, with their cameras. recolour :
    share whose colour channels are permuted. Batch i depends only on the seed and i.
    """

    whole_batches = True

    def __init__(
        self,
        pictures: Pictures,
        config: RenderDiffusionConfig,
        distribution: CameraDistribution,
        *,
        rays: int,
        mirror: float,
        recolour: float,
        seed: int,
        batch: int,
        first_batch: int = 0,
    ) -> None:
        super().__init__(first_batch)
        self.pictures = pictures
        self.config = config
        self.distribution = distribution
        self.rays = min(rays, config.image_size**2)
        self.mirror = mirror
        self.recolour = recolour
        self.seed = seed
        self.batch = batch

    def chunk(self, number: int) -> Iterator[dict[str, Tensor]]:
        """Batch `number`."""
        random = np.random.default_rng([self.seed, number])
        chosen = random.integers(len(self.pictures), size=self.batch)
        color, alpha = on_background(self.pictures.pixels[chosen], self.config.background)
        size = self.config.image_size
        row, column = np.divmod(np.arange(size * size), size)
        samples = []
        for seen, there, picture in zip(color, alpha, chosen, strict=True):
            camera = self.pictures.cameras[picture] or self.distribution.draw(self.config, random)
            if random.random() < self.mirror:
                camera, seen, there = mirrored(camera), seen[:, ::-1], there[:, ::-1]
            if random.random() < self.recolour:
                seen = seen[..., random.permutation(3)]
            rays = camera.ray_directions(row, column) @ camera.camera_to_world[:3, :3].T
            samples.append(
                {
                    "image": np.moveaxis(seen * 2 - 1, -1, 0),
                    "alpha": there.reshape(-1),
                    "origin": camera.position[None],
                    "directions": rays,
                    "pixel": random.permutation(size * size)[: self.rays],
                }
            )
        joined = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
        yield {
            name: torch.from_numpy(part.astype(np.int64 if name == "pixel" else np.float32))
            for name, part in joined.items()
        }
