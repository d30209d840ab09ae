"""Pictures of a scene that is set up for them; another Blender can open a copy of it."""

from __future__ import annotations

import ctypes
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np
from mathutils import Vector

from ...xray_addon.errors import XRayError
from ...xray_addon.pictures.shading import PRESETS, Lights
from ..convert import add_camera
from ..convert.materials import with_nodes
from ..convert.staging import TEMPORARY, TemporaryData
from ..interface.standard_output import quietly

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...xray_addon.camera import Camera
    from ...xray_addon.settings.dataset import DatasetSettings

# Angular diameter of a sun in radians; it gives shadows soft edges.
SUN_ANGLE = 0.15
# EGL_PLATFORM_SURFACELESS_MESA, from the extension EGL_MESA_platform_surfaceless.
EGL_SURFACELESS = 0x31DD


@dataclass(frozen=True)
class View:
    """A picture to render.

    camera : in the space of the X-Rays; the lights of presets depend on it. placed : the same in
    the scene. seed : the same one gives the same picture.
    """

    camera: Camera
    placed: Camera
    seed: int


@dataclass(frozen=True)
class Studio:
    """A scene that is set up for pictures: its objects, engine and render settings.

    settings : uses image and lights.
    """

    scene: Any
    settings: DatasetSettings

    def picture(self, view: View) -> NDArray[np.uint8]:
        """(H, W, 4) sRGB with straight alpha. Raises XRayError `render_failed`."""
        scene, settings = self.scene, self.settings
        scene.render.resolution_x, scene.render.resolution_y = view.camera.width, view.camera.height
        with TemporaryData() as shot:
            seen: Any = add_camera(view.placed, scene.name, scene.collection)
            shot.own(seen.data)
            shot.own(seen)
            scene.camera = seen
            if settings.image != "workbench" and settings.lights in PRESETS:
                lights = Lights.preset(settings.lights, view.camera, view.seed)
                _light_by_preset(scene, shot, lights, view.placed)
            if settings.image == "cycles":
                scene.cycles.seed = view.seed % 2**31
            return shoot(scene, view.camera)


def write_scene(scene: Any, path: Path) -> None:
    """Write `scene` and all that it uses to `path`. Raises XRayError `unsaved_image`,
    `cannot_write`."""
    try:
        bpy.data.libraries.write(str(path), {scene}, path_remap="ABSOLUTE")
        libraries: Any = bpy.data.libraries
        with libraries.load(str(path)) as (written, _):
            used = set(written.images)
    except (OSError, RuntimeError) as error:
        raise XRayError(
            "cannot_write",
            f"{path} cannot be written ({str(error).strip()}).",
            "Free some space for temporary files.",
        ) from error
    images: Any = bpy.data.images
    unsaved = [image.name for image in images if image.is_dirty and image.name in used]
    if unsaved:
        raise XRayError(
            "unsaved_image",
            f"These images have changes that are only in memory: {', '.join(unsaved)}.",
            "Save or pack them (Image > Save, or Pack).",
        )


def open_scene(path: Path, settings: DatasetSettings) -> Studio:
    """Open a file of `write_scene`; returns its scene. Raises XRayError `no_gpu`."""
    if settings.image != "cycles":
        check_display(settings.image)
    # Scripts do not run; what they have driven is stored.
    bpy.ops.wm.open_mainfile(filepath=str(path), load_ui=False, use_scripts=False)
    scenes = [scene for scene in bpy.data.scenes if scene.name.startswith(TEMPORARY)]
    return Studio(scenes[0], settings)


def world_background(world: Any) -> Any:
    """Reset the world's node tree to a single Background node; returns that node."""
    tree = with_nodes(world)
    tree.nodes.clear()
    background = tree.nodes.new("ShaderNodeBackground")
    output = tree.nodes.new("ShaderNodeOutputWorld")
    tree.links.new(background.outputs["Background"], output.inputs["Surface"])
    return background


def check_display(engine: str) -> None:
    """Raise XRayError `no_gpu` if EEVEE and Workbench cannot draw here. `engine` is for people."""
    if not can_draw():
        raise XRayError(
            "no_gpu",
            f"{engine} needs a display or GPU, and this Blender has none.",
            "Render with Cycles or the built-in shader, or run where OpenGL works.",
        )


def can_draw() -> bool:
    """Whether EEVEE and Workbench can draw here. If they cannot, Blender would abort."""
    if not bpy.app.background or not sys.platform.startswith("linux"):
        return True
    # Without a window Blender on Linux draws on Mesa's surfaceless platform.
    try:
        egl = ctypes.CDLL("libEGL.so.1")
        find = egl.eglGetPlatformDisplay
    except (OSError, AttributeError):  # no library, or one older than EGL 1.5
        return False
    find.restype = ctypes.c_void_p
    find.argtypes = [ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p]
    egl.eglInitialize.argtypes = [ctypes.c_void_p] * 3
    display = find(EGL_SURFACELESS, None, None)
    return bool(display) and bool(egl.eglInitialize(display, None, None))


def _light_by_preset(scene: Any, shot: TemporaryData, lights: Lights, camera: Camera) -> None:
    """Set up the scene's world, and suns, to light matte surfaces as the built-in shader does."""
    rotation = camera.camera_to_world[:3, :3]
    background = world_background(scene.world)
    tree = scene.world.node_tree
    # Radiance mean + slope * (direction . up) lights a matte surface with
    # mean + 2/3 slope (normal . up).
    mean, slope = (lights.sky + lights.ground) / 2, 0.75 * (lights.sky - lights.ground)
    direction = tree.nodes.new("ShaderNodeTexCoord")
    dot = tree.nodes.new("ShaderNodeVectorMath")
    dot.operation = "DOT_PRODUCT"
    dot.inputs[1].default_value = (rotation @ lights.up).tolist()
    radiance = tree.nodes.new("ShaderNodeMath")
    radiance.operation = "MULTIPLY_ADD"
    radiance.inputs[1].default_value, radiance.inputs[2].default_value = slope, mean
    tree.links.new(direction.outputs["Generated"], dot.inputs[0])
    tree.links.new(dot.outputs["Value"], radiance.inputs[0])
    tree.links.new(radiance.outputs["Value"], background.inputs["Strength"])
    background.inputs["Color"].default_value = (1.0, 1.0, 1.0, 1.0)
    for towards, strength in zip(lights.directions, lights.strengths, strict=True):
        lamp: Any = shot.own(bpy.data.lights.new(TEMPORARY, "SUN"))
        lamp.energy, lamp.angle = math.pi * float(strength), SUN_ANGLE
        sun = shot.own(bpy.data.objects.new(TEMPORARY, lamp))
        scene.collection.objects.link(sun)
        quaternion = Vector((rotation @ towards).tolist()).to_track_quat("Z", "Y")
        sun.matrix_world = quaternion.to_matrix().to_4x4()


def shoot(scene: Any, camera: Camera) -> NDArray[np.uint8]:
    """Render `scene` and read the file that it wrote."""
    images: Any = bpy.data.images
    had_result = "Render Result" in images
    try:
        with quietly():
            done: Any = bpy.ops.render.render(write_still=True, scene=scene.name)
    except RuntimeError as error:
        raise _failed(str(error)) from error
    finally:
        if not had_result and "Render Result" in images:
            images.remove(images["Render Result"])
    path = Path(scene.render.filepath)
    if done != {"FINISHED"} or not path.is_file():
        raise _failed("it was cancelled")
    with TemporaryData() as read:
        image = read.own(bpy.data.images.load(str(path)))
        image.alpha_mode = "STRAIGHT"
        pixels = np.empty(camera.height * camera.width * 4, dtype=np.float32)
        image.pixels.foreach_get(pixels)
    path.unlink()
    pixels = pixels.reshape(camera.height, camera.width, 4)[::-1]
    return np.rint(pixels * 255.0).astype(np.uint8)


def _failed(reason: str) -> XRayError:
    return XRayError(
        "render_failed",
        f"The image was not rendered: {reason.strip()}.",
        "Try another renderer, or fewer samples.",
    )
