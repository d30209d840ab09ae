"""Downloadable weights: their names, their folders, and which ones are missing.

A checkpoint is a local path, a name in `PUBLISHED`, or a hub id ("owner/repo", optionally with
"@revision"). A bare published name always means the published weights; a file or folder of the same
name needs a separator, as in "./svd". Hub files keep their names in `<cache>/<owner>--<repo>/`.
Nothing here uses the network; `runtime.checkpoints` does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Self

from ..files.folders import cache_folder
from . import PUBLISHED
from .system import HandFile, Published, System

# How many folders above the checkpoint are searched for the folders of other weights.
LEVELS = 4

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on a hub."""

    repo: str
    revision: str = "main"
    published: Published | None = None

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Parse a name in `PUBLISHED` or a hub id; None for anything else."""
        if name in PUBLISHED:
            return cls(PUBLISHED[name].repo, published=PUBLISHED[name])
        if not _HUB_ID.fullmatch(name):
            return None
        repo, _, revision = name.partition("@")
        known = next((item for item in PUBLISHED.values() if item.repo == repo), None)
        return cls(repo, revision or "main", known)

    @property
    def files(self) -> tuple[str, ...]:
        """The needed files; empty if only the hub knows them."""
        return self.published.files if self.published else ()

    @property
    def repo_type(self) -> str:
        """The hub's type of the repository: "model" or "dataset"."""
        return self.published.repo_type if self.published else "model"

    @property
    def page(self) -> str:
        """The path of the repository's page on the hub."""
        return self.repo if self.repo_type == "model" else f"{self.repo_type}s/{self.repo}"

    def folder(self, cache: str | PathLike[str] | None = None) -> Path:
        """The folder of its files. Revisions other than the main one have their own folders."""
        owner, _, repo = self.repo.partition("/")
        revision = "" if self.revision == "main" else "@" + self.revision.replace("/", "-")
        return cache_folder(cache) / f"{owner}--{repo}{revision}"


@dataclass(frozen=True)
class Offer:
    """What a download would fetch, for the user to review first.

    revision : the commit. files : the checkpoint's files that are not yet in `folder`.
    size : bytes to download. licence, licence_url : as stated on the hub.
    """

    repo: str
    revision: str
    files: tuple[RemoteFile, ...]
    size: int
    licence: str
    licence_url: str
    folder: Path

    def __str__(self) -> str:
        names = "".join(f"\n  {f.path} ({megabytes(f.size)})" for f in self.files)
        return (
            f"{self.repo} at {self.revision[:12]}\n"
            f"Licence: {self.licence}, see {self.licence_url}\n"
            f"{megabytes(self.size)} to download to {self.folder}:{names}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"folder": str(self.folder)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises KeyError and TypeError for invalid data."""
        files = tuple(RemoteFile(**file) for file in data["files"])
        return cls(**data | {"files": files, "folder": Path(data["folder"])})


@dataclass(frozen=True)
class RemoteFile:
    """A file on the hub. digest : its SHA-256, or "git:" and the SHA-1 of its git blob."""

    path: str
    size: int
    digest: str


def local_path(checkpoint: str | PathLike[str]) -> Path | None:
    """The existing local file or folder `checkpoint`, or None."""
    if isinstance(checkpoint, str) and checkpoint in PUBLISHED:
        return None
    try:
        path = Path(checkpoint).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError):  # a name that is too long; an unknown home folder
        return None


def beside(folder: Path, names: Iterable[str]) -> Path | None:
    """The first folder with one of `names`, in `folder` or above it."""
    folder = folder.absolute()
    for place in (folder, *folder.parents[:LEVELS]):
        for name in names:
            if (place / name).is_dir():
                return place / name
    return None


def missing(
    system: System, checkpoint: str = "", cache: str | PathLike[str] | None = None
) -> list[str]:
    """Names of missing downloadable weights that `system` needs for `checkpoint`.

    Only checks that files with the right names exist.
    """
    chosen = checkpoint or system.checkpoint
    if not chosen or not system.weights:
        return []
    path = local_path(chosen)
    wanted = [] if path else [chosen]
    wanted += [
        weights.name
        for weights in system.weights
        if weights.name != system.checkpoint
        and (path is None or beside(path, weights.folders) is None)
    ]
    return [
        name
        for name in wanted
        if Checkpoint.parse(name.replace("\\", "/")) and not is_here(name, cache)
    ]


def hand_folder(system: System, cache: str | PathLike[str] | None = None) -> Path:
    """The folder where files of `System.by_hand` are searched if no checkpoint is chosen."""
    return cache_folder(cache) / system.name


def find_by_hand(
    system: System,
    file: HandFile,
    checkpoint: str = "",
    cache: str | PathLike[str] | None = None,
) -> Path | None:
    """The path of `file` at any depth in the folder `checkpoint` or `hand_folder`, or None.

    A network trained by X-Ray, `<key>.safetensors`, is preferred. If `checkpoint` is a file, that
    is used.
    """
    place = local_path(checkpoint) if checkpoint else hand_folder(system, cache)
    if place is None or not place.exists():
        return None
    if place.is_file():
        return place
    for name in (f"{file.key}.safetensors", file.name):
        found = sorted(place.rglob(name))
        if found:
            return found[0]
    return None


def missing_by_hand(
    system: System,
    settings: Any,
    checkpoint: str = "",
    cache: str | PathLike[str] | None = None,
) -> list[HandFile]:
    """The files that a generation with `settings` needs and that are missing on this machine.

    settings : the system's own, or Blender properties with the same names.
    """
    if system.by_hand is None:
        return []
    return [
        file
        for file in system.by_hand.needed(settings)
        if find_by_hand(system, file, checkpoint, cache) is None
    ]


def is_here(name: str, cache: str | PathLike[str] | None = None) -> bool:
    """Whether files of the checkpoint `name` exist here; their contents are not checked."""
    hub = Checkpoint.parse(name.replace("\\", "/"))
    if hub is None:
        return False
    folder = hub.folder(cache)
    if not hub.files:
        return folder.is_dir()
    return all((folder / file).is_file() for file in hub.files)


def megabytes(size: int) -> str:
    """A size in bytes as readable text."""
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.2f} GB"
