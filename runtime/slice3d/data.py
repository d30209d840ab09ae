"""Training samples of Slice3D, from the published layout (see `xray_addon.slices.layout`).

Sample i depends only on the seed and i, so a resumed run sees the same samples as an uninterrupted
one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xray_addon.errors import XRayError
from xray_addon.files.arrays import read_array
from xray_addon.slices.layout import IMAGES, SDFS, SLICES, Views, read_split, seen_distances
from xray_addon.slices.slicing import NAMES

from ..images.reading import read_rgba as stored_rgba
from ..training.numbered import Numbered
from .preparation import on_background, resized, to_tensor

LARGEST = 1 << 27  # bytes of one object's distances
_CACHED_BYTES = 512 << 20  # of pictures, in each process that makes samples
_CACHED_OBJECTS = 1024  # whose distances are kept, a quarter of a megabyte each


class SliceData:
    """The objects of one split in a folder.

    size : px of the networks' pictures. background : "black" or "white". slices : the folder of the
    slices; those of the published autoencoder are in "05_img_slices_rec".

    Raises XRayError `no_data`.
    """

    def __init__(
        self, folder: Path, split: str, *, size: int, background: str, slices: str = SLICES
    ) -> None:
        self.folder = folder
        self.uids = read_split(folder, split)
        self.size = size
        self.background = background
        self._slices = slices
        bytes_of_view = 3 * (1 + len(NAMES)) * size**2
        self.pictures = lru_cache(_CACHED_BYTES // bytes_of_view)(self._pictures)
        self.views = lru_cache(None)(self._views)
        self.distances = lru_cache(_CACHED_OBJECTS)(self._distances)

    def _pictures(self, uid: str, view: int) -> NDArray[np.uint8]:
        """(13, S, S, 3): the image, then the slices in the order of `NAMES`."""
        name = f"{view:03d}"
        paths = [self.folder / IMAGES / uid / f"{name}.png"]
        paths += [self.folder / self._slices / uid / name / f"{part}.png" for part in NAMES]
        pictures = [on_background(read_rgba(path), self.background) for path in paths]
        return np.stack([resized(picture, self.size) for picture in pictures])

    def _views(self, uid: str) -> Views:
        return Views.read(self.folder / IMAGES / uid)

    def _distances(self, uid: str) -> NDArray[np.floating]:
        path = self.folder / SDFS / f"{uid}.npy"
        try:
            found = read_array(path, largest=LARGEST)
            if found.ndim != 2 or found.shape[1] != 4 or not np.isfinite(found).all():
                raise ValueError(f"it holds {found.shape}, not (N, 4)")
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error
        return found

    def sample(self, uid: str, view: int, queries: int, seed: list[int]) -> dict[str, Tensor]:
        """A training sample; see `SliceDataset`."""
        found = self.distances(uid)
        # As in the published code, draw without replacement, and use all if there are fewer.
        chosen = np.random.default_rng(seed).permutation(len(found))[:queries]
        points, distances = seen_distances(found[chosen], self.views(uid), view)
        pictures = to_tensor(self.pictures(uid, view))
        return {
            "image": pictures[0],
            "slices": pictures[1:],
            "points": torch.from_numpy(points),
            "distances": torch.from_numpy(distances),
        }


class SliceDataset(Numbered):
    """Endless samples of random views, cycling through the objects.

    {image (3, S, S), slices (12, 3, S, S) in -1..1, points (Q, 3), distances (Q,)}
    """

    def __init__(
        self, data: SliceData, queries: int, *, seed: int, batch: int = 1, first_batch: int = 0
    ) -> None:
        super().__init__(first_batch)
        self.data = data
        self.queries = queries
        self.seed = seed
        self.batch = batch

    def chunk(self, number: int) -> Iterator[dict[str, Tensor]]:
        """The samples of batch `number`."""
        for sample in range(number * self.batch, (number + 1) * self.batch):
            yield self.sample(sample)

    def sample(self, number: int) -> dict[str, Tensor]:
        """Sample `number`."""
        uids = self.data.uids
        epoch, place = divmod(number, len(uids))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(uids))
        uid = uids[order[place]]
        views = len(self.data.views(uid).azimuths)
        view = int(np.random.default_rng([self.seed, number]).integers(views))
        return self.data.sample(uid, view, self.queries, [self.seed, number, 1])


def read_rgba(path: Path) -> NDArray[np.uint8]:
    """(H, W, 4) of an image file; raises XRayError `bad_dataset`."""
    try:
        return stored_rgba(path)
    except XRayError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> XRayError:
    return XRayError(
        "bad_dataset",
        f"{path} cannot be read ({error}).",
        "Write the data again with `blender -c xray dataset ... --slices`.",
    )
