"""Training samples: omages of a folder, or of the published HDF5 set.

Sample number i is a function of the seed and i alone.
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
OMAGES = "omage"  # the name of the HDF5 set's array
# The folders of a dataset that is made with --omage.
OMAGES_FOLDER, METADATA_FOLDER = "omages", "metadata"
METADATA = "_meta.json"  # behind the name of the HDF5 file
LARGEST = 1 << 26  # bytes of the metadata, which has 500 for each omage
_ROW = schema.record({"source": schema.text()}, {"uid": schema.text()})
_ROWS = schema.table_of(schema.record({"success": schema.plain}, {"cate_id": schema.plain}))
NO_CATEGORY = len(CATEGORIES)
_KEPT = 2048  # omages that are kept in memory


class Collection(Protocol):
    """Omages with their categories."""

    @property
    def categories(self) -> Sequence[int]:
        """A number for each; `NO_CATEGORY` for none."""
        ...

    def __len__(self) -> int: ...

    def omage(self, number: int) -> Omage:
        """Omage `number`; raises XRayError `bad_omage`."""
        ...


@dataclass(frozen=True)
class Folder:
    """`.npz` and `.npy` files; the category is the nearest folder that is called like one.

    Of a dataset of ours the categories are those of the folders that the meshes came from.
    """

    paths: tuple[Path, ...]
    categories: tuple[int, ...]

    @classmethod
    def of(cls, folder: Path, size: int) -> Folder:
        """Of all omages in `folder` and below, by their paths.

        size : pixels that are wanted; of several resolutions the least that has as many is taken.
        """
        if (folder / METADATA_FOLDER).is_dir() and (folder / OMAGES_FOLDER).is_dir():
            return cls._of_dataset(folder, size)
        paths = sorted(path for suffix in ("*.npz", "*.npy") for path in folder.rglob(suffix))
        return cls(tuple(paths), tuple(_category(path, folder) for path in paths))

    @classmethod
    def _of_dataset(cls, folder: Path, size: int) -> Folder:
        paths, categories = [], []
        for path in sorted((folder / METADATA_FOLDER).glob("*.json")):
            row = read_row(path, _ROW)  # None for a broken one, which costs that item alone
            files = sorted((folder / OMAGES_FOLDER / path.stem).glob("*.npz"), key=_resolution)
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
    """`NAME.h5` with `NAME_meta.json` beside it, as its authors publish it: 64 pixels a side.

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
            # Opened for each, as an open file must not be shared with a loader's processes.
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
    """The omages in a folder, or in an `.h5` file or a folder with one. size : see `Folder.of`.

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
    """Which of `count` omages belong to the split "train", "val" or "all"; as published."""
    shuffled = np.arange(count)
    np.random.RandomState(SPLIT_SEED).shuffle(shuffled)
    border = round(TRAINING_SHARE * count)
    return {"train": shuffled[:border], "val": shuffled[border:], "all": np.arange(count)}[split]


def to_tensor(omage: Omage, size: int) -> Tensor:
    """(12, S, S) from -1 to 1, as the networks see it: unoccupied pixels are -1 throughout."""
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
    """Endless samples {omage (12, S, S), label ()}, drawn at random."""

    def __init__(
        self, data: Collection, numbers: NDArray[np.int64], size: int, *, seed: int, first: int = 0
    ) -> None:
        super().__init__(first)
        self.data = data
        self.numbers = numbers
        self.size = size
        self.seed = seed
        self._kept: dict[int, Tensor] = {}

    def chunk(self, number: int) -> Iterator[dict[str, Tensor]]:
        """Sample `number` alone."""
        yield self.sample(number)

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
    """That of a dataset's omage, by its name."""
    return int(path.stem)


def _category(path: Path, top: Path) -> int:
    """The number of the nearest folder's category above `path`; `NO_CATEGORY` if none is one."""
    for folder in path.relative_to(top).parents:
        name = folder.name.replace("_", " ")
        if name in CATEGORIES:
            return CATEGORIES.index(name)
    return NO_CATEGORY
