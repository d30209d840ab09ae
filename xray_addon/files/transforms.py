"""`transforms.json`: the cameras of a dataset item, in the published (NeRF) layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..camera import Camera
from ..errors import XRayError
from .atomic import replacing


def write_transforms(
    path: str | PathLike[str], cameras: Sequence[Camera], names: Sequence[str]
) -> None:
    """Write the cameras that took the images called `names` (without suffix), atomically.

    All must share one field of view, as the layout has one `camera_angle_x`; else ValueError.
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
        temporary.write_text(json.dumps(document, indent=1), encoding="utf-8")


def read_transforms(path: str | PathLike[str], width: int, height: int) -> dict[str, Camera]:
    """The cameras by image name (without folder and suffix), for `width` x `height` px.

    Files that name no principal point are the published ones: it lies in the image's centre and
    rays pass through the pixels' corners (`pixel_offset` 0).

    Raises XRayError `missing_file` or `bad_transforms`.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        angle = float(document["camera_angle_x"])
        cameras = {}
        for frame in document["frames"]:
            name = Path(str(frame["file_path"]).replace("\\", "/")).stem
            cameras[name] = camera_from_frame(frame, angle, width, height)
    except FileNotFoundError as error:
        raise XRayError("missing_file", f"There is no file {path}.", "Check the path.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise XRayError(
            "bad_transforms",
            f"{path} is not a transforms.json: {error}.",
            "It needs camera_angle_x and frames with file_path and transform_matrix.",
        ) from error
    return cameras


def camera_from_frame(frame: dict[str, Any], fov_x: float, width: int, height: int) -> Camera:
    """The camera of one entry of `frames`, for `width` x `height` px; see `read_transforms`.

    Raises ValueError, KeyError or TypeError for what is no such entry.
    """
    taken = Camera(
        int(frame.get("w", width)),
        int(frame.get("h", height)),
        fov_x,
        np.array(frame.get("transform_matrix", frame.get("c2w")), dtype=np.float64),
        frame.get("cx"),
        frame.get("cy"),
        float(frame.get("pixel_offset", 0.0)),
    )
    return taken.resized(width, height)
