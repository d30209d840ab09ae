"""The published layout of Slice3D's training data: images, slices, signed distances, splits.

::

    00_img_input/<uid>/NNN.png                   the object from view NNN, RGBA
    00_img_input/<uid>/meta.json                 the `Views`
    00_img_input/<uid>/meta.pkl                  the same for the published code; never read here
    01_img_slices/<uid>/NNN/{X,Y,Z}_{1..4}.png   its slices, RGBA
    02_sdfs/<uid>.npy                            (N, 4) points and their signed distances
    03_splits/{train,val,test,trainval}.lst      uids, one per line

In the images, the object's box has a diagonal of `Views.scale` and its centre at `Views.offset`;
z is up. Points and distances are of the centred object with a diagonal of 1; y is up and z points
to Blender's -y.
"""

from __future__ import annotations

import hashlib
import json
import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..camera import Camera
from ..errors import XRayError
from ..files.atomic import replacing
from ..files.deflate import Deflater
from ..files.json_files import read_json
from ..files.json_schema import integer, list_of, number, record
from ..files.png import write_png
from ..surface import Surface
from .signed_distance import PUBLISHED_LEVEL, samples
from .slicing import DISTANCE, NAMES, placement, published_camera

IMAGES, SLICES, SDFS, SPLITS = "00_img_input", "01_img_slices", "02_sdfs", "03_splits"
META = "meta.json"
POINTS = 16_384
# The published rule: evenly spaced azimuths, starting at +x; random elevations and sizes.
ELEVATIONS = (math.radians(-10), math.radians(40))
SCALES = (0.75, 1.1)
_ANGLES = list_of(number(-10, 10), 1, 1 << 12)
_META = record(
    {
        "azimuths": _ANGLES,
        "elevations": _ANGLES,
        "scale": number(1e-6, 1e6),
        "offset": list_of(number(-1e6, 1e6), 3, 3),
        "size": integer(1, 1 << 13),
    }
)
# From z up to y up, as in mesh files.
_Y_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])


@dataclass(frozen=True)
class Views:
    """The placement of an object and its cameras. azimuths, elevations : radians, per view."""

    azimuths: tuple[float, ...]
    elevations: tuple[float, ...]
    scale: float = 1.0
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    size: int = 256

    @classmethod
    def drawn(cls, count: int, seed: int, size: int = 256) -> Self:
        """`count` random views by the published rule; reproducible with the seed."""
        random = np.random.default_rng(seed)
        azimuths = 2 * math.pi * np.arange(count) / count
        elevations = random.uniform(*ELEVATIONS, size=count)
        scale = float(random.uniform(*SCALES))
        return cls(tuple(azimuths.tolist()), tuple(elevations.tolist()), scale, size=size)

    @property
    def cameras(self) -> list[Camera]:
        """The camera of each view."""
        return [
            published_camera(azimuth, elevation, self.size)
            for azimuth, elevation in zip(self.azimuths, self.elevations, strict=True)
        ]

    def placed(self, surface: Surface) -> NDArray[np.float64]:
        """(4, 4) matrix that places `surface` in front of the cameras."""
        matrix: NDArray[np.float64] = placement(surface, self.scale, self.offset)
        return matrix

    def write(self, folder: Path) -> None:
        """Write `meta.json` and `meta.pkl` in `folder`."""
        cameras = self.cameras
        focal, middle = cameras[0].focal, self.size / 2
        # Axes of OpenCV: y down, z away from the viewer.
        poses = [(np.diag([1.0, -1, -1]) @ c.world_to_camera[:3]).tolist() for c in cameras]
        values = {
            "K": [[focal, 0.0, middle], [0.0, focal, middle], [0.0, 0.0, 1.0]],
            "azimuths": list(self.azimuths),
            "elevations": list(self.elevations),
            "distances": [DISTANCE] * len(cameras),
            "cam_poses": poses,
            "scale": self.scale,
            "offset": list(self.offset),
        }
        with replacing(folder / META) as temporary:
            text = json.dumps({"size": self.size, **values}, indent=1) + "\n"
            temporary.write_text(text, encoding="utf-8", newline="\n")
        # Plain lists can be read with every version of NumPy.
        with replacing(folder / "meta.pkl") as temporary:
            temporary.write_bytes(pickle.dumps(list(values.values()), protocol=4))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read `meta.json` in `folder`. Raises XRayError `bad_dataset`."""
        path = folder / META
        try:
            values = read_json(path, _META)
            views = cls(
                tuple(values["azimuths"]),
                tuple(values["elevations"]),
                values["scale"],
                tuple(values["offset"]),
                values["size"],
            )
        except (OSError, ValueError) as error:
            raise XRayError(
                "bad_dataset",
                f"{path} cannot be read ({error}).",
                "Write the data with `blender -c xray dataset ... --slices`; a meta.pkl alone is "
                "not read, since a pickle can run code.",
            ) from error
        return views


def write_slices(
    folder: Path, pictures: NDArray[np.uint8], deflater: Deflater | None = None
) -> None:
    """Write `pictures` (12, H, W, 3 or 4), in the order of `NAMES`, to `X_1.png` to `Z_4.png`."""
    for name, picture in zip(NAMES, pictures, strict=True):
        write_png(folder / f"{name}.png", picture, deflater)


def distance_samples(surface: Surface, seed: int, count: int = POINTS) -> NDArray[np.float32]:
    """The samples (count, 4) of `surface` (z up, any placement) for `02_sdfs`.

    Raises XRayError `no_surface`, `encloses_nothing`.
    """
    found = samples(surface.transformed(placement(surface)), count, seed)
    found[:, :3] = found[:, :3] @ _Y_UP.T.astype(np.float32)
    return found


def write_distances(path: Path, found: NDArray[np.float32]) -> None:
    """Write `02_sdfs/<uid>.npy`."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, found, allow_pickle=False)


def seen_distances(
    found: NDArray[np.floating], views: Views, view: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Points (N, 3) in a view's camera axes and their distances (N,), as used in training.

    Axes as in `runtime.slice3d`: x right, y down, z away from the viewer; the origin is the point
    that the camera looks at. Distances are to the published surface.
    """
    world = (found[:, :3] @ _Y_UP) * views.scale + np.asarray(views.offset)
    rotation = views.cameras[view].world_to_camera[:3, :3]
    points = world @ rotation.T * (1.0, -1.0, -1.0)
    distances = (found[:, 3] - PUBLISHED_LEVEL) * views.scale
    return points.astype(np.float32), distances.astype(np.float32)


def split_of(uid: str) -> str:
    """The split of an object: about 10 % are "val", 10 % "test", the others "train".

    It depends only on the uid, so adding objects does not move others.
    """
    place = hashlib.sha256(f"split of {uid}".encode()).digest()[0] / 256
    return "test" if place < 0.1 else "val" if place < 0.2 else "train"


def split_lists(splits: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The contents of the files in `03_splits`, by name: train, val, test, and trainval, which is
    train and val together."""
    lists = {name: sorted(splits.get(name, ())) for name in ("train", "val", "test")}
    lists["trainval"] = sorted([*lists["train"], *lists["val"]])
    return {f"{SPLITS}/{name}.lst": "\n".join(uids) for name, uids in lists.items()}


def write_splits(folder: Path, splits: Mapping[str, Sequence[str]]) -> None:
    """Write `03_splits`."""
    for name, text in split_lists(splits).items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")


def read_split(folder: Path, name: str) -> list[str]:
    """The uids of a split, or of all objects if there are no splits.

    Raises XRayError `no_data` if there are no uids.
    """
    path = folder / SPLITS / f"{name}.lst"
    if path.is_file():
        uids = path.read_text(encoding="utf-8").split()
    else:
        uids = sorted(file.stem for file in (folder / SDFS).glob("*.npy"))
    if not uids:
        raise XRayError(
            "no_data",
            f"There are no objects under {folder}" + (f" in the split {name!r}." if name else "."),
            "Write some with `blender -c xray dataset SOURCE OUT --slices`.",
        )
    return uids
