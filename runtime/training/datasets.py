"""Training samples from datasets on disk: published layout, WebDataset tars, metadata.jsonl.

Usage::

    dataset = XRayDataset("dataset")  # a folder with xrays/ and images/, ours or the published
    dataset = XRayDataset(["shards-0001.tar", "shards-0002.tar"])
    dataset = XRayDataset("dataset/metadata.jsonl")  # the views that it lists
    sample = dataset[0]
"""

from __future__ import annotations

import io
import re
import tarfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache, partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from xray_addon.camera import Camera
from xray_addon.dataset.store import SETTINGS
from xray_addon.errors import XRayError
from xray_addon.files.json_files import parse_json
from xray_addon.files.json_schema import nullable, plain, record, text
from xray_addon.files.names import is_clean_name, is_clean_path
from xray_addon.files.opening import open_regular
from xray_addon.files.transforms import camera_from_frame, read_transforms
from xray_addon.xray import XRay

from ..images.reading import read_rgba
from .views import to_frames

Name = str | PathLike[str]

LONGEST_LINE = 1 << 20  # bytes, of metadata.jsonl
LARGEST_MEMBER = 1 << 30  # bytes, of a tar; the largest X-Ray has half of it
_LINE = record({"xray": text()})
_SAMPLE = record({"camera": nullable(plain)})


class XRayDataset(Dataset):
    """One sample per view, in the order of the uids and views.

    places : a folder in the published layout, a tar, a metadata.jsonl, or several of them. If a
    folder has metadata/, only items with a row there are used, because the others are incomplete.

    A sample is a dict. If all X-Rays have the same size, torch's collate function can batch it:

    - uid, view : str, int.
    - frames : (L, 8, H, W) float32, in the layout of `runtime.training.views.to_frames`.
    - image : (4, I, I) float32 RGBA 0..1; absent if the dataset has no images.
    - camera : of the X-Ray's pixels, the tensors camera_to_world (4, 4), fov_x (radians), cx, cy
      and pixel_offset; see `xray_addon.Camera`. Absent if there is no transforms.json.

    Raises XRayError `no_data` if nothing is found, and for single samples those of `XRay.load` and
    `read_transforms`.
    """

    def __init__(self, places: Name | Sequence[Name]) -> None:
        several = not isinstance(places, str | PathLike)
        names: Sequence[Name] = places if several else [places]  # type: ignore[assignment, list-item]
        self.views: list[_View] = []
        for place in map(Path, names):
            if place.is_dir():
                self.views += _folder_views(place)
            elif place.suffix == ".tar":
                self.views += _tar_views(place)
            else:
                self.views += _listed_views(place)
        if not self.views:
            raise XRayError(
                "no_data",
                f"There are no X-Rays in {', '.join(map(str, names))}.",
                "Give a folder with xrays/ in it, a .tar shard, or a metadata.jsonl.",
            )

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, number: int) -> dict[str, Any]:
        view = self.views[number]
        xray = view.xray()
        _, height, width = xray.shape
        sample: dict[str, Any] = {
            "uid": view.uid,
            "view": view.number,
            "frames": torch.from_numpy(np.ascontiguousarray(to_frames(xray))),
        }
        image = view.image()
        if image is not None:
            sample["image"] = image
        camera = view.camera(width, height)
        if camera is not None:
            sample["camera"] = {
                name: torch.tensor(np.asarray(getattr(camera, name)), dtype=torch.float32)
                for name in ("camera_to_world", "fov_x", "cx", "cy", "pixel_offset")
            }
        return sample


class _View(ABC):
    """The source of one sample."""

    def __init__(self, uid: str, number: int) -> None:
        self.uid = uid
        self.number = number

    @abstractmethod
    def xray(self) -> XRay:
        """The X-Ray."""

    @abstractmethod
    def image(self) -> torch.Tensor | None:
        """The image (4, I, I), or None."""

    @abstractmethod
    def camera(self, width: int, height: int) -> Camera | None:
        """The camera for an image of this size, or None."""


class _FileView(_View):
    """A view in a folder with the published layout."""

    def __init__(self, folder: Path, uid: str, name: str) -> None:
        super().__init__(uid, int(name))
        self._xray = folder / "xrays" / uid / f"{name}.npz"
        self._image = folder / "images" / uid / f"{name}.png"

    def xray(self) -> XRay:
        return XRay.load(self._xray)

    def image(self) -> torch.Tensor | None:
        return _pixels(self._image) if self._image.is_file() else None

    def camera(self, width: int, height: int) -> Camera | None:
        path = self._image.with_name("transforms.json")
        if not path.is_file():
            return None
        cameras = _cameras(path, width, height)
        name = self._image.stem
        if name not in cameras:
            raise XRayError("bad_transforms", f"{path} has no camera {name}.", "Capture it again.")
        return cameras[name]


class _TarView(_View):
    """A sample of a tar. The offsets of its members are known, so any can be read directly."""

    def __init__(self, tar: Path, key: str, members: dict[str, tuple[int, int]]) -> None:
        uid, _, number = key.rpartition("-")
        super().__init__(uid, int(number))
        self._tar = tar
        self._members = members

    def xray(self) -> XRay:
        return XRay.load(io.BytesIO(self._read("npz")))

    def image(self) -> torch.Tensor | None:
        return _pixels(self._read("png")) if "png" in self._members else None

    def camera(self, width: int, height: int) -> Camera | None:
        try:
            frame = parse_json(self._read("json"), _SAMPLE)["camera"]
            return None if frame is None else camera_from_frame(frame, width, height)
        except (KeyError, ValueError) as error:
            raise XRayError(
                "bad_transforms",
                f"{self._tar} has no camera for {self.uid}-{self.number:03d} ({error}).",
                "Pack the shard again.",
            ) from error

    def _read(self, suffix: str) -> bytes:
        start, size = self._members[suffix]
        with open_regular(self._tar) as stream:
            stream.seek(start)
            return stream.read(size)


def view_files(folder: Path) -> list[Path]:
    """The X-Rays of the complete items of the dataset in `folder`, sorted."""
    files = sorted((folder / "xrays").glob("*/*.npz"))
    # Other names are not views, e.g. the ._000.npz files that macOS writes on foreign disks.
    files = [file for file in files if file.stem.isdecimal() and file.stem.isascii()]
    rows = folder / "metadata"
    if rows.is_dir() or (folder / SETTINGS).is_file():
        complete = {path.stem for path in rows.glob("*.json")}
        files = [file for file in files if file.parent.name in complete]
    return files


def _folder_views(folder: Path) -> list[_View]:
    return [_FileView(folder, file.parent.name, file.stem) for file in view_files(folder)]


def _listed_views(path: Path) -> list[_View]:
    try:
        with open_regular(path) as stream:
            lines = iter(partial(stream.readline, LONGEST_LINE), b"")
            xrays = [_listed(line) for line in lines if line.strip()]
    except FileNotFoundError as error:
        raise XRayError("missing_file", f"There is no file {path}.", "Check the path.") from error
    except (OSError, ValueError) as error:
        raise XRayError(
            "bad_metadata",
            f"{path} cannot be read as metadata.jsonl ({error}).",
            "Give the metadata.jsonl of a dataset.",
        ) from error
    return [_FileView(path.parent, uid, name) for uid, name in xrays]


def _listed(line: bytes) -> tuple[str, str]:
    """Uid and view of a line of metadata.jsonl."""
    parts = str(parse_json(line, _LINE, largest=LONGEST_LINE)["xray"]).split("/")
    folder, uid, file = parts if len(parts) == 3 else ("", "", "")
    name = file.removesuffix(".npz")
    if folder != "xrays" or not is_clean_name(uid) or not name.isdecimal() or not name.isascii():
        raise ValueError(f"{'/'.join(parts)!r:.80} is not xrays/<uid>/NNN.npz")
    return uid, name


def _tar_views(path: Path) -> list[_View]:
    members: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with open_regular(path) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                if not member.isreg() or member.issparse():  # links, devices, folders
                    continue
                if member.size > LARGEST_MEMBER:
                    raise ValueError(f"{member.name:.80} has {member.size} bytes")
                name = member.name.removeprefix("./")
                if not is_clean_path(name):
                    raise ValueError(f"{name!r:.80} is no name of a member")
                # WebDataset's rule: the key ends at the first dot.
                key, _, suffix = name.partition(".")
                members.setdefault(key, {})[suffix] = (member.offset_data, member.size)
    except FileNotFoundError as error:
        raise XRayError("missing_file", f"There is no file {path}.", "Check the path.") from error
    except (OSError, tarfile.TarError, ValueError, EOFError, zlib.error) as error:
        raise XRayError(
            "bad_shard", f"{path} cannot be read ({error}).", "Download or pack the shard again."
        ) from error
    keys = [key for key in members if "npz" in members[key]]
    odd = [key for key in keys if not re.fullmatch(r"[^/\\]+-[0-9]+", key)]
    if odd:
        raise XRayError(
            "bad_shard",
            f"{path} is not a shard of X-Rays: {odd[0]} is not named after an item and a view.",
            "Pack the shard again.",
        )
    return [_TarView(path, key, members[key]) for key in keys]


@lru_cache(maxsize=64)
def _cameras(path: Path, width: int, height: int) -> dict[str, Camera]:
    return read_transforms(path, width, height)


def _pixels(file: Path | bytes) -> torch.Tensor:
    """(4, H, W) RGBA 0..1. Raises XRayError `unreadable_image`."""
    pixels = read_rgba(file).astype(np.float32) / 255
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 0)))
