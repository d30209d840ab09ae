"""Converts Blender's camera objects to and from `Camera`."""

from __future__ import annotations

import math
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

from ...xray_addon.camera import Camera
from ...xray_addon.errors import XRayError

SENSOR_WIDTH = 36.0  # mm, Blender's default


def camera_from_object(
    obj: bpy.types.Object | None, render: bpy.types.RenderSettings, size: int | None = None
) -> Camera:
    """The `Camera` that renders the same image as `obj`.

    Sensor fit, lens shift, resolution and resolution percentage are respected. `size` scales the
    image so that its longer side has that many pixels; None keeps the render's size.

    Raises XRayError `no_camera` without a camera, and `unsupported_camera` for an orthographic,
    panoramic or sheared camera and for pixels that are not square.
    """
    if obj is None or not isinstance(obj.data, bpy.types.Camera):
        raise XRayError(
            "no_camera",
            "The scene has no camera.",
            "Add a camera and make it active, or choose other cameras.",
        )
    data: Any = obj.data
    if data.type != "PERSP":
        kind = {"ORTHO": "orthographic", "PANO": "panoramic"}.get(data.type, data.type.lower())
        raise _unsupported(obj, f"it is {kind}", "Set its lens type to Perspective.")
    if not math.isclose(render.pixel_aspect_x, render.pixel_aspect_y, rel_tol=1e-6):
        raise _unsupported(
            obj, "the pixels are not square", "Set the output's pixel aspect to 1 : 1."
        )
    percentage = render.resolution_percentage / 100
    width = max(1, int(render.resolution_x * percentage))
    height = max(1, int(render.resolution_y * percentage))
    along_width = data.sensor_fit == "HORIZONTAL" or (data.sensor_fit == "AUTO" and width >= height)
    # In AUTO the sensor's width lies along the image's longer side.
    sensor = data.sensor_height if data.sensor_fit == "VERTICAL" else data.sensor_width
    fitted = width if along_width else height
    focal = data.lens / sensor * fitted
    scale = 1.0 if size is None else size / max(width, height)
    pixels_x, pixels_y = max(1, round(width * scale)), max(1, round(height * scale))
    # Rounding moves the short side's edges by less than half a pixel. The view stays centred.
    cx = pixels_x / 2 - data.shift_x * fitted * scale
    cy = pixels_y / 2 + data.shift_y * fitted * scale
    fov_x = 2 * math.atan(0.5 * pixels_x / (focal * scale))
    try:
        return Camera(pixels_x, pixels_y, fov_x, np.array(obj.matrix_world.normalized()), cx, cy)
    except ValueError as error:
        raise _unsupported(
            obj, f"its transform is not a rotation ({error})", "Apply the scale of its parents."
        ) from error


def add_camera(camera: Camera, name: str, collection: bpy.types.Collection) -> bpy.types.Object:
    """Add a camera object with the view of `camera` to `collection`.

    The render resolution is not changed. Its aspect ratio must be the camera's for the same frame.
    """
    assert camera.cx is not None
    assert camera.cy is not None
    data = bpy.data.cameras.new(name)
    data.sensor_fit = "HORIZONTAL"
    data.sensor_width = SENSOR_WIDTH
    data.lens = camera.focal * SENSOR_WIDTH / camera.width
    # Blender's rays pass through the pixels' centres.
    offset = 0.5 - camera.pixel_offset
    data.shift_x = (camera.width / 2 - camera.cx - offset) / camera.width
    data.shift_y = (camera.cy + offset - camera.height / 2) / camera.width
    obj = bpy.data.objects.new(name, data)
    obj.matrix_world = Matrix(camera.camera_to_world.tolist())
    distance = float(np.linalg.norm(camera.position))
    data.clip_start = min(data.clip_start, max(distance / 100, 1e-4))
    data.clip_end = max(data.clip_end, distance * 10)
    collection.objects.link(obj)
    return obj


def _unsupported(obj: bpy.types.Object, reason: str, remedy: str) -> XRayError:
    return XRayError(
        "unsupported_camera", f"The camera {obj.name} cannot be captured: {reason}.", remedy
    )
