"""Weights that are not part of X-Ray: what they are called, where they lie, what is missing.

A checkpoint is a local path, a name of `PUBLISHED`, or a hub id ("owner/repo", with "@revision"
where one is meant). A bare published name always means the published weights: a file or folder
called like one needs a separator, as in "./svd". Files of a hub lie under their own names in
`<cache>/<owner>--<repo>/`. Nothing here uses the network; `runtime.checkpoints` does.
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

# Where these folders are looked for: beside the checkpoint and so many folders above it.
LEVELS = 4

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on a hub: what its name stands for."""

    repo: str
    revision: str = "main"
    published: Published | None = None

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """From a name of `PUBLISHED` or a hub id; None for anything else."""
        if name in PUBLISHED:
            return cls(PUBLISHED[name].repo, published=PUBLISHED[name])
        if not _HUB_ID.fullmatch(name):
            return None
        repo, _, revision = name.partition("@")
        known = next((item for item in PUBLISHED.values() if item.repo == repo), None)
        return cls(repo, revision or "main", known)

    @property
    def files(self) -> tuple[str, ...]:
        """Needed files; empty where only the hub knows them."""
        return self.published.files if self.published else ()

    @property
    def repo_type(self) -> str:
        """What the hub calls the repository: "model" or "dataset"."""
        return self.published.repo_type if self.published else "model"

    @property
    def page(self) -> str:
        """The repository's page behind the hub's address."""
        return self.repo if self.repo_type == "model" else f"{self.repo_type}s/{self.repo}"

    def folder(self, cache: str | PathLike[str] | None = None) -> Path:
        """Where its files lie; another revision than the main one has a folder of its own."""
        owner, _, repo = self.repo.partition("/")
        revision = "" if self.revision == "main" else "@" + self.revision.replace("/", "-")
        return cache_folder(cache) / f"{owner}--{repo}{revision}"


@dataclass(frozen=True)
class Offer:
    """What a download would fetch, for the user to look at before.

    revision : the commit. files : those of the checkpoint that are not yet in `folder`.
    size : bytes to fetch. licence, licence_url : as the hub states them.
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
            f"{megabytes(self.size)} to fetch into {self.folder}:{names}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"folder": str(self.folder)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse. Raises KeyError and TypeError for what is no offer."""
        files = tuple(RemoteFile(**file) for file in data["files"])
        return cls(**data | {"files": files, "folder": Path(data["folder"])})


@dataclass(frozen=True)
class RemoteFile:
    """A file on the hub. digest : its sha256, or "git:" and the sha1 that git gives its blob."""

    path: str
    size: int
    digest: str


def local_path(checkpoint: str | PathLike[str]) -> Path | None:
    """The file or folder that `checkpoint` means; None where it means none that exists."""
    if isinstance(checkpoint, str) and checkpoint in PUBLISHED:
        return None
    try:
        path = Path(checkpoint).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError):  # longer than names can be; the home of nobody
        return None


def beside(folder: Path, names: Iterable[str]) -> Path | None:
    """The first folder with one of `names` in `folder` or above it."""
    folder = folder.absolute()
    for place in (folder, *folder.parents[:LEVELS]):
        for name in names:
            if (place / name).is_dir():
                return place / name
    return None


def missing(
    system: System, checkpoint: str = "", cache: str | PathLike[str] | None = None
) -> list[str]:
    """Names of weights that `system` needs for `checkpoint` and that are not on this machine.

    Only those that can be downloaded. Looks no further than for the files' names.
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
    """Where files of `System.by_hand` are looked for unless a checkpoint is chosen."""
    return cache_folder(cache) / system.name


def find_by_hand(
    system: System,
    file: HandFile,
    checkpoint: str = "",
    cache: str | PathLike[str] | None = None,
) -> Path | None:
    """Where `file` is: in the folder `checkpoint`, or the one for it, at any depth; None if not.

    A network that X-Ray trained, called `<key>.safetensors`, goes first. Where `checkpoint` is a
    file, that is meant.
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
    """The files that a generation with `settings` needs and that are not on this machine.

    settings : the system's own, or Blender's properties of the same names.
    """
    if system.by_hand is None:
        return []
    return [
        file
        for file in system.by_hand.needed(settings)
        if find_by_hand(system, file, checkpoint, cache) is None
    ]


def is_here(name: str, cache: str | PathLike[str] | None = None) -> bool:
    """Whether the files of the checkpoint called `name` are on this machine, whole or not."""
    hub = Checkpoint.parse(name.replace("\\", "/"))
    if hub is None:
        return False
    folder = hub.folder(cache)
    if not hub.files:
        return folder.is_dir()
    return all((folder / file).is_file() for file in hub.files)


def megabytes(size: int) -> str:
    """A size in bytes for people."""
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.2f} GB"
