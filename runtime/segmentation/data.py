"""Synthetic training photos with alpha: our own renders over procedural backgrounds.

No real photos are used. Sample i depends only on the seed and i.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from xray_addon.canonical import canonical_camera
from xray_addon.pictures.shading import Lights, shade

from ..images.reading import open_image
from ..meshes.collection import MeshCache, MeshFile
from ..meshes.trees import tree
from ..training.numbered import Numbered
from ..training.views import view_object

REUSE = 4  # photos per render, because rendering is slower than composing

Floats = NDArray[np.float32]


class Composites(Numbered):
    """Endless samples {photo (3, S, S) sRGB 0..1, alpha (1, S, S)}, from batch `first_batch` on.

    batch : a multiple of `REUSE`.
    """

    def __init__(
        self, files: list[MeshFile], *, seed: int, size: int, batch: int, first_batch: int = 0
    ) -> None:
        super().__init__(first_batch)
        self.groups = batch // REUSE
        self.meshes = MeshCache(files)
        self.seed = seed
        self.size = size

    def chunk(self, number: int) -> Iterator[dict[str, torch.Tensor]]:
        """The samples of batch `number`."""
        for group in range(number * self.groups, (number + 1) * self.groups):
            yield from self.group(group)

    def group(self, number: int) -> Iterator[dict[str, torch.Tensor]]:
        """`REUSE` samples: one object on different backgrounds."""
        random = np.random.default_rng([self.seed, number])
        object_, other = (self._render(random) for _ in range(2))
        for _ in range(REUSE):
            photo, alpha = compose(object_, other, self.size, random)
            yield {
                "photo": torch.from_numpy(np.moveaxis(photo, -1, 0).copy()),
                "alpha": torch.from_numpy(alpha[None].copy()),
            }

    def _render(self, random: np.random.Generator) -> Floats:
        """A random object, (2 S, 2 S, 4) straight alpha."""
        view = None
        while view is None:
            view = view_object(
                self.meshes.draw(random),
                random,
                layers=1,
                resolution=8,
                image_resolution=2 * self.size,
            )
        camera = canonical_camera(2 * self.size, view.elevation)
        return shade(view.fine, camera, Lights.random(camera, random))


def compose(
    object_: Floats, other: Floats, size: int, random: np.random.Generator
) -> tuple[Floats, Floats]:
    """A photo (S, S, 3) of `object_`, possibly with `other` far behind it, and its alpha (S, S).

    object_, other : (2 S, 2 S, 4) straight alpha.
    """
    if random.random() < 0.4:
        object_ = _textured(object_, random)
    fill = random.uniform(0.4, 1.1)
    cut = _placed(object_, size, fill, random.normal(0, 0.07, size=2), random)
    color, alpha = cut[..., :3], cut[..., 3]
    scene = background(size, random)
    if random.random() < 0.25:
        far = _placed(other, size, random.uniform(1.0, 3.0), random.uniform(-0.7, 0.7, 2), random)
        far = ndimage.gaussian_filter(far, (*[random.uniform(1, 4)] * 2, 0))
        scene = far[..., :3] + scene * (1 - far[..., 3:])
    if random.random() < 0.6:
        scene = scene * _shadow(alpha, random)[..., None]
    photo = color + scene * (1 - alpha[..., None])
    return _photographed(photo, random), alpha


def _placed(
    rgba: Floats, size: int, scale: float, offset: NDArray[np.float64], random: np.random.Generator
) -> Floats:
    """The picture (S, S, 4), premultiplied, after random scale, squeeze, turn, shift and mirror.

    scale : 1 shows all of it. offset : down and right, as shares of the frame.
    """
    picture = np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], axis=-1)
    if random.random() < 0.5:
        picture = picture[:, ::-1]
    ratio = len(picture) / size / scale
    if ratio > 1:
        picture = ndimage.gaussian_filter(picture, (ratio / 2, ratio / 2, 0))
    angle, squeeze = random.normal(0, 0.12), np.exp(random.normal(0, 0.15))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag([squeeze, 1 / squeeze]) * ratio
    shift = len(picture) / 2 - matrix @ (size * (0.5 + offset))
    planes = [
        ndimage.affine_transform(plane, matrix, shift, output_shape=(size, size), order=1)
        for plane in np.moveaxis(picture, -1, 0)
    ]
    return np.stack(planes, axis=-1)


def _textured(rgba: Floats, random: np.random.Generator) -> Floats:
    """The picture with a pattern over its colours, because real objects rarely have one colour."""
    pattern = PATTERNS[random.integers(len(PATTERNS))](len(rgba), random)
    share = random.uniform(0.1, 0.7)
    color = rgba[..., :3] * (1 - share + share * 1.6 * pattern)
    return np.concatenate([np.clip(color, 0, 1), rgba[..., 3:]], axis=-1)


def _shadow(alpha: Floats, random: np.random.Generator) -> Floats:
    """The shadow of an object with this alpha: light (S, S), 0..1, below and behind it."""
    size = len(alpha)
    drop = (random.uniform(0.0, 0.12) * size, random.uniform(-0.15, 0.15) * size)
    moved = ndimage.shift(alpha, drop, order=1)
    soft = ndimage.gaussian_filter(moved, random.uniform(0.01, 0.08) * size)
    return 1 - random.uniform(0.1, 0.7) * soft


def _photographed(photo: Floats, random: np.random.Generator) -> Floats:
    """Simulate a camera and its file: exposure, white balance, blur, noise, JPEG."""
    photo = np.clip(photo * random.uniform(0.75, 1.2) * random.normal(1, 0.05, 3), 0, 1)
    photo = photo ** np.exp(random.normal(0, 0.2))
    if random.random() < 0.4:
        photo = ndimage.gaussian_filter(photo, (*[random.uniform(0.3, 1.0)] * 2, 0))
    if random.random() < 0.1:
        photo = np.repeat(photo.mean(axis=-1, keepdims=True), 3, axis=-1)
    photo = photo + random.normal(0, random.uniform(0, 0.04), photo.shape)
    pixels = np.clip(np.rint(photo * 255), 0, 255).astype(np.uint8)
    if random.random() < 0.5:
        stream = BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=int(random.integers(30, 95)))
        with open_image(stream.getvalue()) as image:
            pixels = np.asarray(image)
    return pixels.astype(np.float32) / 255


# ------------------------------------------------------------------------------------ backgrounds


def background(size: int, random: np.random.Generator) -> Floats:
    """A scene (S, S, 3) sRGB 0..1 without an object: a pattern, or a wall over a floor."""
    scene = _surface(size, random)
    if random.random() < 0.4:
        rows = np.arange(size)[:, None] / size
        slope = random.normal(0, 0.1) * (np.arange(size) / size - 0.5)
        edge = random.choice([0.005, 0.02, 0.15])
        floor = 1 / (1 + np.exp(-(rows - random.uniform(0.35, 0.85) - slope) / edge))
        scene = scene * (1 - floor[..., None]) + _surface(size, random) * floor[..., None]
    if random.random() < 0.5:
        scene = ndimage.gaussian_filter(scene, (*[random.uniform(0.5, 4)] * 2, 0))
    return np.clip(scene, 0, 1).astype(np.float32)


def _surface(size: int, random: np.random.Generator) -> Floats:
    """A wall or a floor (S, S, 3): plain, a pattern, or plain with a hint of one."""
    plain = _gradient(size, random)
    if random.random() < 0.35:
        return plain
    share = random.uniform(0.05, 1.0)
    return plain * (1 - share) + PATTERNS[random.integers(len(PATTERNS))](size, random) * share


def _colors(count: int, random: np.random.Generator) -> Floats:
    """`count` colours (N, 3), bright or dark, most of them dull."""
    grey = random.uniform(0, 1, (count, 1))
    return np.clip(grey + random.normal(0, random.choice([0.02, 0.1, 0.3]), (count, 3)), 0, 1)


def _gradient(size: int, random: np.random.Generator) -> Floats:
    """One colour, or a linear or radial gradient."""
    first, second = _colors(2, random)
    if random.random() < 0.25:
        first = second = np.full(3, random.choice([1.0, 0.95, 0.5, 0.0]))
    y, x = np.mgrid[:size, :size] / size - random.uniform(0, 1, (2, 1, 1))
    angle = random.uniform(0, 2 * np.pi)
    along = np.hypot(x, y) if random.random() < 0.5 else x * np.cos(angle) + y * np.sin(angle)
    along = along / max(float(np.abs(along).max()), 1e-6) * random.uniform(0.2, 1)
    return first + (second - first) * np.abs(along)[..., None]


def _noise(size: int, random: np.random.Generator) -> Floats:
    """Fractal noise between two to four colours: stone, grass, clouds."""
    value = np.zeros((size, size))
    cells = int(random.choice([2, 4, 8, 24]))
    fall = random.uniform(0.4, 0.9)
    strength = 1.0
    while cells < size:
        # Longer cells along one axis look like wood or brushed metal.
        shape = (cells, max(1, cells // int(random.choice([1, 1, 4]))))
        grid = Image.fromarray(random.normal(0, 1, shape).astype(np.float32))
        value += strength * np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC))
        cells, strength = cells * 2, strength * fall
    colors = _colors(int(random.integers(2, 5)), random)
    place = (value.argsort(axis=None).argsort() / value.size).reshape(size, size)
    stops = np.linspace(0, 1, len(colors))
    return np.stack([np.interp(place, stops, channel) for channel in colors.T], axis=-1)


def _stripes(size: int, random: np.random.Generator) -> Floats:
    """Stripes or a chequered pattern, in perspective or not."""
    first, second = _colors(2, random)
    y, x = np.mgrid[:size, :size] / size - 0.5
    angle = random.uniform(0, np.pi)
    depth = 1 + random.choice([0.0, random.uniform(0.2, 1.5)]) * y
    u = (x * np.cos(angle) + y * np.sin(angle)) / depth * random.uniform(2, 25)
    v = (y * np.cos(angle) - x * np.sin(angle)) / depth * random.uniform(2, 25)
    wave = np.sin(2 * np.pi * u)
    if random.random() < 0.5:
        wave = wave * np.sin(2 * np.pi * v)
    sharp = random.choice([1.0, 4.0, 30.0])
    share = 1 / (1 + np.exp(-sharp * wave))
    return first + (second - first) * share[..., None]


def _cells(size: int, random: np.random.Generator) -> Floats:
    """Cells of one colour each: pebbles, tiles, leaves."""
    seeds = random.uniform(0, size, (int(random.integers(8, 200)), 2))
    pixels = np.indices((size, size)).reshape(2, -1).T
    nearest, owner = tree(seeds).query(pixels)
    colors = _colors(1, random) + random.normal(0, random.uniform(0.03, 0.3), (len(seeds), 3))
    shaded = colors[owner] * (1 - random.uniform(0, 0.5) * (nearest / nearest.max())[:, None])
    return shaded.reshape(size, size, 3)


def _clutter(size: int, random: np.random.Generator) -> Floats:
    """Boxes, discs and leaves in many colours: a room or a garden out of focus."""
    canvas = Image.new("RGB", (size, size), tuple((_colors(1, random)[0] * 255).astype(int)))
    draw = ImageDraw.Draw(canvas)
    for color in _colors(int(random.integers(3, 25)), random):
        fill = tuple((color * 255).astype(int))
        middle = random.uniform(0, size, 2)
        corners = middle + random.normal(0, random.uniform(0.05, 0.4) * size, (4, 2))
        low, high = corners.min(axis=0), corners.max(axis=0)
        match random.integers(3):
            case 0:
                draw.rectangle((*low, *high), fill=fill)
            case 1:
                draw.ellipse((*low, *high), fill=fill)
            case _:
                draw.polygon([tuple(corner) for corner in corners], fill=fill)
    return np.asarray(canvas, dtype=np.float32) / 255


PATTERNS = (_noise, _stripes, _cells, _clutter)
