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
from torch.utils.data import Dataset

from xray_addon.errors import XRayError
from xray_addon.published import FAR, NEAR
from xray_addon.xray import XRay

from ..images.reading import read_rgba as stored_rgba
from ..training.datasets import view_files
from ..training.numbered import Numbered
from .conditioning import IMAGE_SIZE, opaque


def to_published_frames(xray: XRay, layers: int, *, near: float = NEAR, far: float = FAR) -> Tensor:
    """The published training tensor (layers, 8, H, W) of an X-Ray.

    Depth from -1 (near) to 1 (far), normal, colour from -1 to 1, hit -1 or 1. Pixels without a hit
    have the depth of distance 0 (-2 for the published near and far), normal 0 and colour -1.
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


def list_views(data: Path, *, hold_out: int) -> list[tuple[Path, Path]]:
    """X-Ray and image of each view in `data`, sorted; every `hold_out`-th is left out.

    Raises XRayError `no_data`.
    """
    found = ((path, path.parent.name) for path in view_files(data))
    pairs = [(path, data / "images" / uid / f"{path.stem}.png") for path, uid in found]
    pairs = [pair for pair in pairs if pair[1].is_file()]
    if hold_out:
        pairs = [pair for number, pair in enumerate(pairs) if (number + 1) % hold_out]
    if not pairs:
        raise XRayError(
            "no_data",
            f"There are no views in {data}.",
            "Point --data at a dataset: a folder with xrays/<uid>/NNN.npz and "
            "images/<uid>/NNN.png, as made by `blender -c xray dataset`.",
        )
    return pairs


def agree(rgba: NDArray[np.uint8], xray: XRay, least: float) -> bool:
    """Whether image and X-Ray show the same silhouette: IoU above `least`."""
    hit = xray.hit[0]
    alpha = Image.fromarray(np.ascontiguousarray(rgba[..., 3]))
    seen = np.asarray(alpha.resize(hit.shape[::-1], Image.Resampling.BILINEAR)) > 127
    return float((seen & hit).sum()) > least * max(float((seen | hit).sum()), 1.0)


def read_rgba(path: Path, size: int) -> NDArray[np.uint8]:
    """Read an image as (size, size, 4). Raises XRayError `unreadable_image`."""
    rgba = Image.fromarray(stored_rgba(path))
    if rgba.size != (size, size):
        rgba = rgba.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(rgba)


class Views(Dataset[dict[str, Tensor]]):
    """Samples {image (3, 512, 512) in -1..1, frames (layers, 8, size, size)} of `list_views`.

    min_iou : minimum silhouette IoU of image and first layer. A view below it is replaced by the
    next one, usually of the same object. 0 uses all views.

    Raises XRayError `no_data` if no view is usable, `bad_xray_file`, `unreadable_image`.
    """

    def __init__(
        self,
        pairs: list[tuple[Path, Path]],
        *,
        layers: int,
        size: int,
        near: float,
        far: float,
        min_iou: float,
    ) -> None:
        self.pairs = pairs
        self.min_iou = min_iou
        self.layers = layers
        self.size = size
        self.near = near
        self.far = far

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        xray, rgba = self._first_that_agrees(number)
        frames = to_published_frames(xray, self.layers, near=self.near, far=self.far)
        rgb = torch.from_numpy(opaque(rgba))
        return {
            "image": rgb.permute(2, 0, 1).float() / 255 * 2 - 1,
            "frames": functional.interpolate(frames, size=(self.size, self.size), mode="nearest"),
        }

    def _first_that_agrees(self, number: int) -> tuple[XRay, NDArray[np.uint8]]:
        for place in range(number, number + len(self)):
            file, picture = self.pairs[place % len(self)]
            xray, rgba = XRay.load(file), read_rgba(picture, IMAGE_SIZE)
            if not self.min_iou or agree(rgba, xray, self.min_iou):
                return xray, rgba
        raise XRayError(
            "no_data",
            f"No view of {self.pairs[0][0].parents[2]} has a matching image and X-Ray.",
            "Check the images' alpha channels, or lower min_iou.",
        )


class ShuffledViews(Numbered):
    """Endless shuffled views, each once per epoch; the order depends on `seed`.

    batch : the loader's batch size. first_batch : the first batch to return.
    """

    def __init__(self, views: Views, seed: int, batch: int, first_batch: int = 0) -> None:
        super().__init__(first_batch)
        self.views = views
        self.seed = seed
        self.batch = batch
        self._order = (-1, np.zeros(0, np.intp))  # an epoch and its order

    def chunk(self, number: int) -> Iterator[dict[str, Tensor]]:
        """The samples of batch `number`."""
        for place in range(number * self.batch, (number + 1) * self.batch):
            yield self.views[self.place(place)]

    def place(self, number: int) -> int:
        """The index of the view for sample `number`."""
        count = len(self.views)
        epoch, place = divmod(number, count)
        if self._order[0] != epoch:
            random = np.random.default_rng([self.seed, epoch])
            self._order = epoch, random.permutation(count)
        return int(self._order[1][place])
