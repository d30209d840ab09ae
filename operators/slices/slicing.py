"""Makes twelve slices of objects and captured X-Rays, as pictures in Blender and as files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np

from ...xray_addon.dataset.cameras import FRONT
from ...xray_addon.dataset.precision import check_step, pixel_size
from ...xray_addon.errors import XRayError
from ...xray_addon.slices.layout import write_slices
from ...xray_addon.slices.sheet import slice_sheet
from ...xray_addon.slices.slicing import placement, published_camera, slice_surface, slice_xray
from ..convert import camera_from_object, surface_and_sources
from ..convert.images import show
from ..dataset.slice_rendering import render_slices
from ..layers.layers import layers_of, load_placed, read_layers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...xray_addon.camera import Camera
    from ...xray_addon.settings.slices import SliceSettings
    from ...xray_addon.surface import Surface
    from ..layers.layers import Placed

IMAGE_NAME = "X-Ray Slices"


def slice_objects(
    objects: Sequence[bpy.types.Object], settings: SliceSettings
) -> NDArray[np.uint8]:
    """Pictures (12, S, S, 4) of all `objects` together, in the order of `slices.NAMES`.

    Raises XRayError `no_faces`, `far_from_origin`, `bad_mesh`, `no_camera`, `unsupported_camera`,
    and those of `render_slices`.
    """
    bpy.context.view_layer.update()
    depsgraph = bpy.context.evaluated_depsgraph_get()
    surface, sources = surface_and_sources(objects, depsgraph, visible_in=settings.visible_in)
    try:
        size = surface.longest_side
        surface, camera = _seen(surface, settings)
        check_step(sources.step, pixel_size([camera], surface) * size / surface.longest_side)
        if settings.shading == "cycles":
            return render_slices(surface, camera, settings.aligned, settings.samples)
        return slice_surface(surface, camera, aligned=settings.aligned).pictures()
    except ValueError as error:
        raise XRayError(
            "bad_mesh",
            f"{', '.join(obj.name for obj in objects)} cannot be sliced: {error}.",
            "Choose an object with faces that is not a single point.",
        ) from error


def slice_captured(obj: Any, settings: SliceSettings) -> NDArray[np.uint8]:
    """Pictures (12, S, S, 4) of the X-Ray to which `obj` belongs, from its camera.

    Raises XRayError `no_layers` for another object, and those of reading its file.
    """
    placed = captured(obj)
    if placed is None:
        raise XRayError(
            "no_layers",
            "The active object is no captured X-Ray.",
            "Import an X-Ray, or select objects with faces.",
        )
    sliced = slice_xray(placed.xray, placed.camera, aligned=settings.aligned)
    return sliced.pictures()


def captured(obj: Any) -> Placed | None:
    """The X-Ray that `obj` was made from, with its camera; None for any other object."""
    if obj is None:
        return None
    layers = layers_of(obj)
    if layers is not None:
        return read_layers(layers)
    return load_placed(obj["xray_file"]) if "xray_file" in obj else None


def show_slices(pictures: NDArray[np.uint8]) -> bpy.types.Image:
    """Show the slices side by side in every open Image Editor."""
    return show(slice_sheet(pictures), IMAGE_NAME)


def save_slices(pictures: NDArray[np.uint8], folder: Path) -> None:
    """Write `X_1.png` to `Z_4.png` to `folder`. Raises XRayError `cannot_write`."""
    try:
        write_slices(folder, pictures)
    except OSError as error:
        raise XRayError(
            "cannot_write",
            f"{folder} cannot be written to ({error.strerror or error}).",
            "Choose a folder that exists or can be made, with space left.",
        ) from error


def _seen(surface: Surface, settings: SliceSettings) -> tuple[Surface, Camera]:
    """The surface as the camera sees it, and the camera."""
    if settings.view == "published":
        camera = published_camera(
            FRONT + math.radians(settings.azimuth),
            math.radians(settings.elevation),
            settings.size,
        )
        return surface.transformed(placement(surface)), camera
    scene = bpy.context.scene
    if scene.camera is None:
        raise XRayError(
            "no_camera",
            "The scene has no camera to look through.",
            "Add one, or take the published view.",
        )
    return surface, camera_from_object(scene.camera, scene.render, settings.size)
