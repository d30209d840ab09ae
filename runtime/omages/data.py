"""Training samples: omages of a folder, or of the published HDF5 set.

Sample number i is a function of the seed and i alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xray_addon.errors import XRayError
from xray_addon.omage import Omage
from xray_addon.omage.categories import CATEGORIES

from ..training.numbered import Numbered

SPLIT_SEED, TRAINING_SHARE = 314, 0.9  # as published
SPLITS = ("train", "val", "all")
OMAGES = "omage"  # the name of the HDF5 set's array
METADATA = "_meta.json"  # behind the name of the HDF5 file
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
    """`.npz` and `.npy` files; the category is the nearest folder that is called like one."""

    paths: tuple[Path, ...]
    categories: tuple[int, ...]

    @classmethod
    def of(cls, folder: Path) -> Folder:
        """Of all omages in `folder` and below, by their paths."""
        paths = sorted(path for suffix in ("*.npz", "*.npy") for path in folder.rglob(suffix))
        return cls(tuple(paths), tuple(_category(path, folder) for path in paths))

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
            rows: Any = list(json.loads(metadata.read_text(encoding="utf-8")).values())
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


def collection(data: Path) -> Folder | PublishedSet:
    """The omages in a folder, or in an `.h5` file or a folder with one.

    Raises XRayError `no_data`, `bad_data`, `missing_package`.
    """
    files = [data] if data.suffix == ".h5" else sorted(data.glob("*.h5"))
    found: Folder | PublishedSet = PublishedSet(files[0]) if files else Folder.of(data)
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


def _category(path: Path, top: Path) -> int:
    """The number of the nearest folder's category above `path`; `NO_CATEGORY` if none is one."""
    for folder in path.relative_to(top).parents:
        name = folder.name.replace("_", " ")
        if name in CATEGORIES:
            return CATEGORIES.index(name)
    return NO_CATEGORY
