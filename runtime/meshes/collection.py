"""Folders of meshes for training and evaluation."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from xray_addon.errors import XRayError
from xray_addon.files.opening import open_regular
from xray_addon.surface import Surface

from .quantised import SUFFIX, read_quantised

TEXTURE_SIZE = 256  # a texel is smaller than a pixel anyway


@dataclass(frozen=True)
class MeshFile:
    """A mesh of the collection, and its group of recoloured copies."""

    path: Path
    group: str
    split: str = ""

    def read(self) -> Surface:
        """Read the mesh. Raises XRayError `unreadable_mesh`."""
        if self.path.name.endswith(SUFFIX):
            return read_quantised(self.path)
        from .files import read_mesh  # packed meshes need no trimesh

        return read_mesh(self.path, texture_size=TEXTURE_SIZE)


def find_manifest(data: Path) -> Path | None:
    """The `manifest.csv` in `data` or up to two folders above it."""
    folders = (data, *data.parents[:2])
    return next((p for f in folders if (p := f / "manifest.csv").is_file()), None)


def list_meshes(data: Path, *, split: str = "", exclude: tuple[str, ...] = ()) -> list[MeshFile]:
    """The mesh files under `data`, sorted.

    A `manifest.csv` in `data` or above it (columns path, pack, geom_group, split) defines the
    splits and groups. A file without a split there, or without a manifest, is in every split.
    exclude : packs (folder names) to leave out.

    Raises XRayError `no_data` if no files remain, `bad_manifest`.
    """
    data = data.resolve()
    manifest = find_manifest(data)
    files = []
    if manifest is not None:
        for path, row in _listed(manifest):
            there = row.get("split") or ""
            if path.is_relative_to(data) and (not split or there in ("", split)):
                files.append(MeshFile(path, row.get("geom_group") or str(path), there))
    if manifest is None or not (files or split):
        files = [MeshFile(path, str(path)) for path in data.rglob("*.glb")]
    files = [file for file in files if file.path.parent.name not in exclude]
    if not files:
        raise XRayError(
            "no_data",
            f"There are no meshes under {data}" + (f" in the split {split!r}." if split else "."),
            "Point --data at a folder of .glb files, or at one with a manifest.csv.",
        )
    return sorted(files, key=lambda file: file.path)


def _listed(manifest: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Each file of a manifest, with its path resolved, and its row.

    Raises XRayError `bad_manifest`.
    """
    try:
        with io.TextIOWrapper(open_regular(manifest), "utf-8-sig", newline="") as stream:
            for number, row in enumerate(csv.DictReader(stream), 2):
                if not row.get("path"):
                    raise ValueError(f"line {number} has no path")
                yield Path(os.path.normpath(manifest.parent / row["path"])), row
    except (OSError, ValueError, csv.Error) as error:
        raise XRayError(
            "bad_manifest",
            f"{manifest} cannot be read as a manifest ({error}).",
            "It is a .csv with the column path, and pack, geom_group and split if known.",
        ) from error


class Source(Protocol):
    """Something to read a mesh from, such as a `MeshFile`."""

    @property
    def group(self) -> str:
        """The group of copies that it belongs to."""

    def read(self) -> Surface:
        """The mesh."""


class MeshCache:
    """Meshes that are read once and cached. When drawing, a group of copies is one object."""

    def __init__(self, files: Sequence[Source]) -> None:
        self.files = files
        sizes = Counter(file.group for file in files)
        weights = np.array([1.0 / sizes[file.group] for file in files])
        self._cumulative = np.cumsum(weights / weights.sum())
        self._surfaces: dict[int, Surface] = {}

    def choose(self, random: np.random.Generator) -> int:
        """The index of a random mesh."""
        return min(int(np.searchsorted(self._cumulative, random.random())), len(self.files) - 1)

    def draw(self, random: np.random.Generator) -> Surface:
        """A random mesh."""
        return self.surface(self.choose(random))

    def surface(self, number: int) -> Surface:
        """Mesh `number`."""
        if number not in self._surfaces:
            self._surfaces[number] = self.files[number].read()
        return self._surfaces[number]
