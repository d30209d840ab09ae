"""Renders slices as in the published data: cuts the mesh and renders the pieces with Cycles."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bmesh
import bpy
import numpy as np

from ...xray_addon.camera import Camera
from ...xray_addon.slices.slicing import LAMP, LAMP_WATTS, NAMES, SKY, SLABS
from ...xray_addon.surface import Surface
from ..convert import add_camera, mesh_from_surface
from ..convert.staging import Stage, TemporaryData, set_engine
from .studio import shoot, world_background

if TYPE_CHECKING:
    from numpy.typing import NDArray


def render_slices(
    surface: Surface, camera: Camera, aligned: str, samples: int, seed: int = 0
) -> NDArray[np.uint8]:
    """Pictures (12, H, W, 4), straight alpha, in the order of `slices.NAMES`.

    As in the published data: no materials, a uniform sky and the lamp of Blender's default scene,
    the camera at the origin, Blender 3's "Filmic" view. aligned : see `slices.slice_surface`.

    Raises XRayError `no_renderer`, `render_failed`, and ValueError if the surface has no faces.
    """
    bare = Surface(surface.vertices, surface.faces, corner_normals=surface.corner_normals)
    into_camera = camera.world_to_camera
    cut_axes = into_camera if aligned == "camera" else np.eye(4)
    low, high = bare.transformed(cut_axes).bounds
    at_origin = replace(camera, camera_to_world=np.eye(4), pixel_offset=0.5)
    pictures = np.zeros((len(NAMES), camera.height, camera.width, 4), dtype=np.uint8)
    with Stage() as stage, tempfile.TemporaryDirectory(prefix="xray-") as folder:
        _set_stage(stage, at_origin, samples, seed, Path(folder))
        whole = stage.own(mesh_from_surface(bare.transformed(into_camera), stage.scene.name))
        # The axes of the cuts, in camera space.
        rotation = (into_camera @ np.linalg.inv(cut_axes))[:3, :3]
        origin = (into_camera @ np.linalg.inv(cut_axes))[:3, 3]
        for axis, letter in enumerate("XYZ"):
            places = np.linspace(low[axis], high[axis], SLABS + 1)
            for slab in range(SLABS):
                number = slab + 1 if letter == "X" else SLABS - slab
                planes = [(places[slab], -1.0)] if slab else []
                planes += [(places[slab + 1], 1.0)] if slab + 1 < SLABS else []
                cuts = [
                    (origin + rotation[:, axis] * place, rotation[:, axis] * sign)
                    for place, sign in planes
                ]
                here = NAMES.index(f"{letter}_{number}")
                pictures[here] = _render_piece(stage, whole, cuts, at_origin)
    return pictures


def _set_stage(stage: Stage, camera: Camera, samples: int, seed: int, folder: Path) -> None:
    scene = stage.scene
    set_engine(scene, "CYCLES", "Cycles")
    scene.cycles.samples, scene.cycles.seed = samples, seed
    scene.cycles.use_denoising = scene.cycles.use_animated_seed = False
    render = scene.render
    render.film_transparent = True
    render.resolution_x, render.resolution_y = camera.width, camera.height
    render.resolution_percentage = 100
    render.filepath = str(folder / "image.png")
    render.image_settings.file_format = "PNG"
    render.image_settings.color_mode = "RGBA"
    render.image_settings.color_depth = "8"
    render.dither_intensity = 0.0
    scene.display_settings.display_device = "sRGB"
    scene.view_settings.view_transform = "Filmic"
    scene.view_settings.look = "None"
    world: Any = stage.own(bpy.data.worlds.new(scene.name))
    world_background(world).inputs["Color"].default_value = (SKY, SKY, SKY, 1.0)
    scene.world = world
    lamp: Any = bpy.data.lights.new(scene.name, "POINT")
    lamp.energy, lamp.shadow_soft_size = LAMP_WATTS, 0.1
    stage.add(lamp).location = LAMP
    seen: Any = add_camera(camera, scene.name, scene.collection)
    stage.own(seen.data)
    stage.own(seen)
    scene.camera = seen


def _render_piece(
    stage: Stage,
    whole: Any,
    cuts: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
    camera: Camera,
) -> NDArray[np.uint8]:
    """Render the part of the mesh `whole` behind planes (point, outward normal); cuts are open."""
    with TemporaryData() as piece:
        mesh = piece.own(whole.copy())
        cutting = bmesh.new()
        try:
            cutting.from_mesh(mesh)
            for point, normal in cuts:
                bmesh.ops.bisect_plane(
                    cutting,
                    geom=[*cutting.verts, *cutting.edges, *cutting.faces],
                    plane_co=point.tolist(),
                    plane_no=normal.tolist(),
                    clear_outer=True,
                )
            empty = not len(cutting.faces)
            cutting.to_mesh(mesh)
        finally:
            cutting.free()
        if empty:
            return np.zeros((camera.height, camera.width, 4), dtype=np.uint8)
        obj = piece.own(bpy.data.objects.new(stage.scene.name, mesh))
        stage.scene.collection.objects.link(obj)
        return shoot(stage.scene, camera)
