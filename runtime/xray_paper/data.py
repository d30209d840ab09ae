"""Datasets in the published layout as training samples of X-Ray at paper scale."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset, Sampler

from xray_addon.errors import XRayError
from xray_addon.progress import Progress, ProgressCallback, ignore_progress
from xray_addon.published import FAR, NEAR
from xray_addon.xray import XRay

from .conditioning import IMAGE_SIZE, opaque


def to_published_frames(xray: XRay, layers: int, *, near: float = NEAR, far: float = FAR) -> Tensor:
    """The published training tensor (layers, 8, H, W) of an X-Ray.

    Depth from -1 (near) to 1 (far), normal, colour from -1 to 1, hit -1 or 1. Where there is no
    hit depth is that of distance 0 (-2 for the published near and far), normal 0, colour -1.
    """
    _, height, width = xray.shape
    there = min(layers, xray.shape[0])
    frames = np.zeros((layers, 8, height, width), dtype=np.float32)
    frames[:there, 0] = xray.depth[:there]
    frames[:, 0] = (frames[:, 0] - near) / (far - near) * 2 - 1
    normal = xray.normal[:there]
    length = np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    frames[:there, 1:4] = np.moveaxis(normal / length, -1, 1)
    frames[:there, 4:7] = np.moveaxis(xray.color[:there], -1, 1)
    frames[:, 4:7] = frames[:, 4:7] * 2 - 1
    frames[:, 7] = -1
    frames[:there, 7] += 2 * xray.hit[:there]
    return torch.from_numpy(frames)


def list_views(
    data: Path,
    *,
    min_iou: float,
    hold_out: int,
    progress: ProgressCallback = ignore_progress,
) -> list[tuple[Path, Path]]:
    """X-Ray and image of each view in `data`, sorted; every `hold_out`-th is left out.

    min_iou : of image and first layer, above which a view is taken; 0 reads no file, else all are
    read (some twenty a second), which `progress` hears and can cancel.

    Raises XRayError `no_data`, `bad_xray_file`, `unreadable_image`.
    """
    found = sorted((data / "xrays").glob("*/*.npz"))
    pairs = [(path, data / "images" / path.parent.name / f"{path.stem}.png") for path in found]
    pairs = [pair for pair in pairs if pair[1].is_file()]
    if hold_out:
        pairs = [pair for number, pair in enumerate(pairs) if (number + 1) % hold_out]
    if not pairs:
        raise XRayError(
            "no_data",
            f"There are no views in {data}.",
            "Point --data at a dataset: a folder with xrays/<uid>/NNN.npz and "
            "images/<uid>/NNN.png, as `blender -c xray dataset` makes it.",
        )
    if not min_iou:
        return pairs
    agreeing = []
    for number, pair in enumerate(pairs):
        # Once a percent: a person reads it.
        if number % max(1, len(pairs) // 100) == 0:
            text = f"Comparing images and X-Rays: {number} of {len(pairs)}"
            progress(Progress("data", number, len(pairs), text))
        if _agree(pair, min_iou):
            agreeing.append(pair)
    return agreeing


def _agree(pair: tuple[Path, Path], least: float) -> bool:
    """Whether image and X-Ray show the same outline: intersection over union above `least`."""
    xray = XRay.load(pair[0])
    alpha = _alpha(read_rgba(pair[1], xray.shape[1]))
    hit = xray.hit[0]
    return float((alpha & hit).sum()) > least * max(float((alpha | hit).sum()), 1.0)


def _alpha(rgba: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return rgba[..., 3] > 127


def read_rgba(path: Path, size: int) -> NDArray[np.uint8]:
    """An image (size, size, 4). Raises XRayError `unreadable_image`."""
    try:
        with Image.open(path) as image:
            rgba = image.convert("RGBA")
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow says of a broken PNG
        raise XRayError(
            "unreadable_image",
            f"{path} cannot be read ({error}).",
            "Make this view again, or remove its image: a view without one is left out.",
        ) from error
    if rgba.size != (size, size):
        rgba = rgba.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(rgba)


class Views(Dataset[dict[str, Tensor]]):
    """Samples {image (3, 512, 512) in -1..1, frames (layers, 8, size, size)} of `list_views`."""

    def __init__(
        self, pairs: list[tuple[Path, Path]], *, layers: int, size: int, near: float, far: float
    ) -> None:
        self.pairs = pairs
        self.layers = layers
        self.size = size
        self.near = near
        self.far = far

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        file, picture = self.pairs[number]
        frames = to_published_frames(XRay.load(file), self.layers, near=self.near, far=self.far)
        rgb = torch.from_numpy(opaque(read_rgba(picture, IMAGE_SIZE)))
        return {
            "image": rgb.permute(2, 0, 1).float() / 255 * 2 - 1,
            "frames": functional.interpolate(frames, size=(self.size, self.size), mode="nearest"),
        }


class Shuffled(Sampler[int]):
    """Numbers below `count` without end, each once an epoch, from place `first` on."""

    def __init__(self, count: int, seed: int, first: int = 0) -> None:
        self.count = count
        self.seed = seed
        self.first = first

    def __iter__(self) -> Iterator[int]:
        epoch, skip = divmod(self.first, self.count)
        while True:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
            yield from (int(number) for number in order[skip:])
            epoch, skip = epoch + 1, 0
