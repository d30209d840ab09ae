"""Training samples from a dataset on disk, in the published layout or as WebDataset tars.

Its views can have any camera; each is transformed to the canonical frame (`framing`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xray_addon.errors import XRayError
from xray_addon.xray import XRay

from ..training.datasets import XRayDataset
from ..training.framing import canonical_frame
from ..training.views import to_frames
from .data import Pairs, photograph, training_sample


def stored_places(data: Path) -> list[Path]:
    """The datasets in `data`, or `data` itself if it is one; empty for a folder of meshes."""
    if data.suffix in (".tar", ".jsonl"):
        return [data]
    if (data / "xrays").is_dir():
        return [data]
    return sorted(data.glob("*.tar"))


class StoredDataset(Pairs):
    """Endless samples, like those of `CastDataset`, from the views of `dataset`.

    Each view is used once per epoch, in an order determined by `seed`. Views that do not fit into
    the canonical frame are skipped.

    Samples raise XRayError `no_data` if no view fits, `bad_transforms` if a view has no camera or
    image, and the errors of reading.
    """

    def __init__(
        self,
        dataset: XRayDataset,
        *,
        seed: int,
        layers: int,
        resolution: int,
        image_resolution: int,
        batch: int,
        first_batch: int = 0,
        batch_step: int = 1,
    ) -> None:
        super().__init__(batch, first_batch, batch_step)
        self.dataset = dataset
        self.seed = seed
        self.layers = layers
        self.resolution = resolution
        self.image_resolution = image_resolution

    def pair(self, number: int) -> Iterator[dict[str, Tensor]]:
        """One view and its mirror image, each with its own `photograph` defects."""
        random = np.random.default_rng([self.seed, number])
        count = len(self.dataset.views)
        epoch, place = divmod(number, count)
        order = np.random.default_rng([self.seed, 2, epoch]).permutation(count)
        view = next(
            filter(None, (self._view(order[(place + i) % count]) for i in range(count))), None
        )
        if view is None:
            raise XRayError(
                "no_data",
                "No view of the dataset has a place in the canonical frame.",
                "Capture objects whole, each from outside.",
            )
        xray, picture, pose = view
        frames = to_frames(xray)
        for mirrored in (False, True):
            yield training_sample(photograph(picture, random), frames, pose, mirrored=mirrored)

    def _view(
        self, number: int
    ) -> tuple[XRay, NDArray[np.float32], tuple[float, float, float]] | None:
        view = self.dataset.views[number]
        xray, picture = view.xray(), view.image()
        camera = view.camera(xray.shape[2], xray.shape[1])
        if camera is None or picture is None:
            raise XRayError(
                "bad_transforms",
                f"View {view.number} of {view.uid} has no camera or no image.",
                "Capture it again with images.",
            )
        frame = canonical_frame(xray, camera)
        if frame is None:
            return None
        return (
            frame.resample(xray, self.layers, self.resolution),
            frame.picture(picture, self.image_resolution),
            (frame.elevation, 0.0, frame.fov_x),
        )
