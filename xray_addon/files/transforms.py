"""`transforms.json`: the cameras of a dataset item, in the published (NeRF) layout."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from ..camera import Camera
from ..errors import XRayError
from .atomic import replacing
from .json_files import read_json
from .json_schema import integer, list_of, nullable, number, record, text
from .names import last_part

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_FRAMES = 1 << 17
_COORDINATE = number(-1e12, 1e12)
_ROW = list_of(_COORDINATE, 4, 4)
_MATRIX = list_of(_ROW, 4, 4)
_PIXELS = integer(1, 1 << 20)
_FIELDS = {
    "transform_matrix": _MATRIX,
    "c2w": _MATRIX,
    "w": _PIXELS,
    "h": _PIXELS,
    "cx": nullable(_COORDINATE),
    "cy": nullable(_COORDINATE),
    "pixel_offset": _COORDINATE,
}
_SHARD_FRAME = record({"camera_angle_x": number()}, _FIELDS)
TRANSFORMS = record(
    {
        "camera_angle_x": number(),
        "frames": list_of(record({"file_path": text()}, _FIELDS), most=MOST_FRAMES),
    },
)
_APPLIED = record({}, {"applied_transform": list_of(_ROW, 3, 3)})


def write_transforms(
    path: str | PathLike[str],
    cameras: Sequence[Camera],
    names: Sequence[str],
    applied: NDArray[np.float64] | None = None,
) -> None:
    """Write the cameras of the images called `names` (without suffix), atomically.

    applied : the matrix (4, 4) that moved the object from its place in the scene to where the
        cameras see it. It becomes `applied_transform`, as in Nerfstudio, unless it is the
        identity, which is meant by None, too.

    Raises ValueError unless all share one field of view: the layout has one `camera_angle_x`.
    """
    angles = {camera.fov_x for camera in cameras}
    if len(angles) > 1:
        raise ValueError("transforms.json holds one field of view for all of its cameras")
    frames = [
        {
            "file_path": f"./{name}",
            "transform_matrix": camera.camera_to_world.tolist(),
            "c2w": camera.camera_to_world.tolist(),
            "w": camera.width,
            "h": camera.height,
            "cx": camera.cx,
            "cy": camera.cy,
            "pixel_offset": camera.pixel_offset,
        }
        for camera, name in zip(cameras, names, strict=True)
    ]
    document: dict[str, Any] = {"camera_angle_x": angles.pop() if angles else 0.0}
    if applied is not None and not np.array_equal(applied, np.eye(4)):
        document["applied_transform"] = applied[:3].tolist()
    document["frames"] = frames
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1), encoding="utf-8", newline="\n")


def read_transforms(path: str | PathLike[str], width: int, height: int) -> dict[str, Camera]:
    """The cameras by image name (without folder and suffix), for `width` x `height` px.

    Files without principal points are taken as published ones: the principal point is the image's
    centre and rays pass through the pixels' corners (`pixel_offset` 0).

    Raises XRayError `missing_file` or `bad_transforms`.
    """
    with _reading(path):
        document = read_json(path, TRANSFORMS)
        angle = document["camera_angle_x"]
        return {
            last_part(frame["file_path"]): _camera(frame, angle, width, height)
            for frame in document["frames"]
        }


def read_applied_transform(path: str | PathLike[str]) -> NDArray[np.float64]:
    """The matrix (4, 4) of `write_transforms`; the identity if the file has none.

    Raises XRayError `missing_file` or `bad_transforms`.
    """
    matrix = np.eye(4)
    with _reading(path):
        matrix[:3] = read_json(path, _APPLIED).get("applied_transform", matrix[:3])
        if abs(np.linalg.det(matrix)) < np.finfo(np.float64).tiny:
            raise ValueError("applied_transform has no inverse")
    return matrix


@contextmanager
def _reading(path: str | PathLike[str]) -> Iterator[None]:
    """Explain what is wrong with the file at `path`."""
    try:
        yield
    except FileNotFoundError as error:
        raise XRayError("missing_file", f"There is no file {path}.", "Check the path.") from error
    except (OSError, ValueError) as error:
        raise XRayError(
            "bad_transforms",
            f"{path} is not a transforms.json: {error}.",
            "It needs camera_angle_x and frames with file_path and transform_matrix.",
        ) from error


def camera_from_frame(frame: Any, width: int, height: int) -> Camera:
    """The camera of an entry of `frames` with its own camera_angle_x, as stored in shards.

    Raises ValueError if it is not such an entry; see `read_transforms`.
    """
    checked = _SHARD_FRAME(frame, "camera")
    return _camera(checked, checked["camera_angle_x"], width, height)


def _camera(frame: dict[str, Any], fov_x: float, width: int, height: int) -> Camera:
    matrix = frame.get("transform_matrix", frame.get("c2w"))
    if matrix is None:
        raise ValueError("a frame has no transform_matrix")
    taken = Camera(
        frame.get("w", width),
        frame.get("h", height),
        fov_x,
        np.array(matrix, dtype=np.float64),
        frame.get("cx"),
        frame.get("cy"),
        frame.get("pixel_offset", 0.0),
    )
    return taken.resized(width, height)
