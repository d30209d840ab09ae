"""Training samples: omages from a folder, or from the published HDF5 dataset.

Sample i depends only on the seed and i.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xray_addon.dataset.rows import read_row
from xray_addon.errors import XRayError
from xray_addon.files import json_schema as schema
from xray_addon.files.json_files import read_json
from xray_addon.omage import Omage
from xray_addon.omage.categories import CATEGORIES

from ..training.numbered import Numbered

SPLIT_SEED, TRAINING_SHARE = 314, 0.9  # as published
SPLITS = ("train", "val", "all")
OMAGES = "omage"  # name of the array in the HDF5 file
# The folders of a dataset made with --omage.
OMAGES_FOLDER, METADATA_FOLDER = "omages", "metadata"
METADATA = "_meta.json"  # suffix of the HDF5 file's name
LARGEST = 1 << 26  # bytes of the metadata, which has 500 per omage
_ROW = schema.record({"source": schema.text()}, {"uid": schema.text()})
_ROWS = schema.table_of(schema.record({"success": schema.plain}, {"cate_id": schema.plain}))
NO_CATEGORY = len(CATEGORIES)
_KEPT = 2048  # omages kept in memory


class Collection(Protocol):
    """Omages with their categories."""

    @property
    def categories(self) -> Sequence[int]:
        """One number per omage; `NO_CATEGORY` if it has none."""
        ...

    def __len__(self) -> int: ...

    def omage(self, number: int) -> Omage:
        """Omage `number`; raises XRayError `bad_omage`."""
        ...


@dataclass(frozen=True)
class Folder:
    """`.npz` and `.npy` files; an omage's category is the nearest folder named after one.

    For our own datasets the folders are those of the original meshes.
    """

    paths: tuple[Path, ...]
    categories: tuple[int, ...]

    @classmethod
    def of(cls, folder: Path, size: int) -> Folder:
        """All omages in `folder` and below, sorted by path.

        size : wanted number of pixels. If there are several resolutions, the smallest with at least
        that many is used.
        """
        if (folder / METADATA_FOLDER).is_dir() and (folder / OMAGES_FOLDER).is_dir():
            return cls._of_dataset(folder, size)
        paths = sorted(path for suffix in ("*.npz", "*.npy") for path in folder.rglob(suffix))
        return cls(tuple(paths), tuple(_category(path, folder) for path in paths))

    @classmethod
    def _of_dataset(cls, folder: Path, size: int) -> Folder:
        paths, categories = [], []
        for path in sorted((folder / METADATA_FOLDER).glob("*.json")):
            row = read_row(path, _ROW)  # None for a broken row, which loses only that item
            files = sorted((folder / OMAGES_FOLDER / path.stem).glob("[!.]*.npz"), key=_resolution)
            if files and row:
                enough = [file for file in files if _resolution(file) >= size]
                paths.append((enough or files[-1:])[0])
                categories.append(_category(Path(row["source"].lstrip("/")), Path()))
        return cls(tuple(paths), tuple(categories))

    def __len__(self) -> int:
        return len(self.paths)

    def omage(self, number: int) -> Omage:
        """See `Collection`."""
        return Omage.load(self.paths[number])


class PublishedSet:
    """`NAME.h5` with `NAME_meta.json` beside it, as published: 64 pixels a side.

    Rows that failed are left out. Raises XRayError `bad_data`, `missing_package`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            import h5py
        except ImportError as error:
            raise XRayError(
                "missing_package",
                f"Reading {path.name} takes the package h5py.",
                "Install the runtime again, or run: pip install h5py",
            ) from error
        metadata = path.with_name(path.stem + METADATA)
        try:
            rows: Any = list(read_json(metadata, _ROWS, largest=LARGEST).values())
            self.rows = [number for number, row in enumerate(rows) if row["success"]]
            self.categories = [int(rows[number]["cate_id"]) for number in self.rows]
            with h5py.File(path, "r") as file:
                shape = file[OMAGES].shape
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._bad(str(error)) from error
        if len(shape) != 4 or shape[0] != len(rows):
            raise self._bad(f"its omages are {shape} and {metadata.name} has {len(rows)} rows")

    def __len__(self) -> int:
        return len(self.rows)

    def omage(self, number: int) -> Omage:
        """See `Collection`."""
        import h5py

        try:
            # Opened each time, because an open file must not be shared with a loader's processes.
            with h5py.File(self.path, "r") as file:
                values = file[OMAGES][self.rows[number]]
            return Omage(values)
        except (OSError, ValueError) as error:
            raise self._bad(str(error)) from error

    def _bad(self, reason: str) -> XRayError:
        return XRayError(
            "bad_data",
            f"{self.path} and its {self.path.stem}{METADATA} are no set of omages ({reason}).",
            "Take both files from the published set, whole.",
        )


def collection(data: Path, size: int = 64) -> Folder | PublishedSet:
    """The omages in a folder, in an `.h5` file, or in a folder with one. size : see `Folder.of`.

    Raises XRayError `no_data`, `bad_data`, `missing_package`.
    """
    files = [data] if data.suffix == ".h5" else sorted(data.glob("*.h5"))
    found: Folder | PublishedSet = PublishedSet(files[0]) if files else Folder.of(data, size)
    if not len(found):
        raise XRayError(
            "no_data",
            f"{data} holds no omages.",
            "Choose a folder of .npz omages, or the published .h5 with its _meta.json.",
        )
    return found


def split_numbers(count: int, split: str) -> NDArray[np.int64]:
    """The indices, of `count` omages, in the published split "train", "val" or "all"."""
    shuffled = np.arange(count)
    np.random.RandomState(SPLIT_SEED).shuffle(shuffled)
    border = round(TRAINING_SHARE * count)
    return {"train": shuffled[:border], "val": shuffled[border:], "all": np.arange(count)}[split]


def to_tensor(omage: Omage, size: int) -> Tensor:
    """(12, S, S) from -1 to 1, for the networks: unoccupied pixels are -1 in all channels."""
    if not omage.has_material:
        raise XRayError(
            "bad_omage",
            f"{omage!r} has geometry alone.",
            "Training takes omages of 12 channels.",
        )
    values = omage.resized(size).channels(0, 12)
    occupied = values[..., 3] >= 0.5
    values[..., 3] = occupied
    values[~occupied] = 0
    return torch.from_numpy(values.transpose(2, 0, 1) * 2 - 1).float()


class OmageDataset(Numbered):
    """Endless random samples {omage (12, S, S), label ()}, from batch `first_batch` on."""

    def __init__(
        self,
        data: Collection,
        numbers: NDArray[np.int64],
        size: int,
        *,
        seed: int,
        batch: int,
        first_batch: int = 0,
    ) -> None:
        super().__init__(first_batch)
        self.batch = batch
        self.data = data
        self.numbers = numbers
        self.size = size
        self.seed = seed
        self._kept: dict[int, Tensor] = {}

    def chunk(self, number: int) -> Iterator[dict[str, Tensor]]:
        """The samples of batch `number`."""
        for each in range(number * self.batch, (number + 1) * self.batch):
            yield self.sample(each)

    def sample(self, number: int) -> dict[str, Tensor]:
        """Sample `number`."""
        random = np.random.default_rng([self.seed, number])
        chosen = int(self.numbers[random.integers(len(self.numbers))])
        if chosen not in self._kept:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[chosen] = to_tensor(self.data.omage(chosen), self.size)
        label = torch.tensor(self.data.categories[chosen])
        return {"omage": self._kept[chosen], "label": label}


def _resolution(path: Path) -> int:
    """The resolution of a dataset's omage, from its name."""
    return int(path.stem)


def _category(path: Path, top: Path) -> int:
    """The category of the nearest folder above `path` named after one, or `NO_CATEGORY`."""
    for folder in path.relative_to(top).parents:
        name = folder.name.replace("_", " ")
        if name in CATEGORIES:
            return CATEGORIES.index(name)
    return NO_CATEGORY
