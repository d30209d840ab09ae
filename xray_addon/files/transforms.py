"""`transforms.json`: the cameras of a dataset item, in the published (NeRF) layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np

from ..camera import Camera
from ..errors import XRayError
from .atomic import replacing
from .json_files import read_json
from .json_schema import integer, list_of, nullable, number, record, text
from .names import last_part

MOST_FRAMES = 1 << 17
_COORDINATE = number(-1e12, 1e12)
_MATRIX = list_of(list_of(_COORDINATE, 4, 4), 4, 4)
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
    }
)


def write_transforms(
    path: str | PathLike[str], cameras: Sequence[Camera], names: Sequence[str]
) -> None:
    """Write the cameras of the images called `names` (without suffix), atomically.

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
    document = {"camera_angle_x": angles.pop() if angles else 0.0, "frames": frames}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1), encoding="utf-8", newline="\n")


def read_transforms(path: str | PathLike[str], width: int, height: int) -> dict[str, Camera]:
    """The cameras by image name (without folder and suffix), for `width` x `height` px.

    Files without principal points are taken as published ones: the principal point is the image's
    centre and rays pass through the pixels' corners (`pixel_offset` 0).

    Raises XRayError `missing_file` or `bad_transforms`.
    """
    try:
        document = read_json(path, TRANSFORMS)
        angle = document["camera_angle_x"]
        return {
            last_part(frame["file_path"]): _camera(frame, angle, width, height)
            for frame in document["frames"]
        }
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
