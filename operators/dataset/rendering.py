"""Reference images of objects, made by one of Blender's renderers or by the built-in shader."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import bpy
import numpy as np

from ...xray_addon.errors import XRayError
from ...xray_addon.pictures.shading import Lights, shade_surface
from ..convert import mesh_from_surface
from ..convert.materials import with_nodes
from ..convert.staging import Stage, TemporaryData, set_engine
from ..convert.visibility import shown_in
from .doubles import remove_doubles
from .studio import Studio, View, check_display, world_background, write_scene

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...xray_addon.camera import Camera
    from ...xray_addon.settings.dataset import DatasetSettings
    from ...xray_addon.surface import Surface
    from .remote import RemoteRenderer

# Rays per pixel along each axis for the built-in shader.
CAST_SAMPLES = 2
# Distance from the origin, in object sizes, beyond which single precision may be visible.
FAR = 1000.0
# Blender's default of 8 transparent bounces renders black behind more layers, e.g. in foliage.
TRANSPARENT_BOUNCES = 64

_ENGLISH = {"cycles": "Cycles", "eevee": "EEVEE", "workbench": "Workbench"}


class Renderer:
    """Pictures of the same objects from many cameras; use it in a `with`.

    objects : objects of the current scene. Those that `settings.visible_in` shows are rendered,
        with the viewport's modifiers, so that images and X-Rays agree. The scene, its camera,
        lights, world and render settings are not changed.
    settings : uses visible_in, image, image_size, samples, denoise, device, lights and hdri.
    surface : the objects' surface in the cameras' space.
    matrix : (4, 4) similarity from the scene's space to the cameras', e.g. the one that
        normalises the objects; the identity by default.
    cast_samples : rays per pixel along each axis for the built-in shader.
    remote : a second Blender that renders. Then the open file gets no temporary scene, except while
        the `with` is entered.

    Raises XRayError `missing_file` or `bad_environment` for the environment image, `no_lights`,
    `no_faces`, `no_renderer` and `no_denoiser` if this Blender lacks them, `no_gpu` if the engine
    needs a GPU or display and there is none, `no_device`, `render_failed`, and those of
    `write_scene` and `RemoteRenderer.picture_steps`.
    """

    def __init__(
        self,
        objects: Sequence[bpy.types.Object],
        settings: DatasetSettings,
        *,
        surface: Surface,
        matrix: NDArray[np.floating] | None = None,
        cast_samples: int = CAST_SAMPLES,
        remote: RemoteRenderer | None = None,
    ) -> None:
        if settings.image not in ("cycles", "eevee", "workbench", "cast"):
            raise ValueError(f"nothing renders {settings.image!r}")
        self._objects, self._settings = list(objects), settings
        self._matrix = np.eye(4) if matrix is None else np.asarray(matrix, dtype=np.float64)
        self._surface, self._cast_samples, self._remote = surface, cast_samples, remote
        self._origin = np.zeros(3)  # offset of the copies from their original place
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self._settings.image != "cast":
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xray-")))
                if self._remote is not None:
                    self._file = folder / "scene.blend"
                    with Stage() as stage:
                        write_scene(self._set_stage(stage, folder).scene, self._file)
                else:
                    self._studio = self._set_stage(stack.enter_context(Stage()), folder)
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def image_steps(self, camera: Camera, seed: int) -> Generator[None, None, NDArray[np.uint8]]:
        """(H, W, 4) sRGB with straight alpha; the longer side has `settings.image_size` px.

        It yields while a second Blender renders. Rays go through the pixels' centres, as in the
        published images; the camera's `pixel_offset` is ignored. The same seed gives the same
        picture.
        """
        seen = picture_camera(camera, self._settings.image_size)
        if self._settings.image == "cast":
            lights = Lights.preset(self._settings.lights, seen, seed)
            return shade_surface(self._surface, seen, lights, samples=self._cast_samples)
        view = View(seen, self._placed(seen), seed)
        if self._remote is not None:
            picture = yield from self._remote.picture_steps(self._file, view)
            return picture
        return self._studio.picture(view)

    def _placed(self, camera: Camera) -> Camera:
        """`camera` in the scene that is rendered."""
        if self._settings.image == "workbench":  # its copy is in the cameras' space
            return camera
        placed = _moved(camera, np.linalg.inv(self._matrix))
        pose = placed.camera_to_world.copy()
        pose[:3, 3] += self._origin
        return replace(placed, camera_to_world=pose)

    def _set_stage(self, stage: Stage, folder: Path) -> Studio:
        """Set up the scene of `stage`, whose renders are files in `folder`."""
        self._stage, scene, settings = stage, stage.scene, self._settings
        studio = Studio(scene, settings)
        render, view = scene.render, scene.view_settings
        _set_engine(scene, settings)
        render.film_transparent = True
        render.resolution_percentage = 100
        render.use_persistent_data = settings.image == "cycles"
        render.filepath = str(folder / "image.png")
        render.image_settings.file_format = "PNG"
        render.image_settings.color_mode = "RGBA"
        render.image_settings.color_depth = "8"
        render.image_settings.compression = 0
        render.dither_intensity = 0.0
        # "Standard" is the plain sRGB curve. Blender's default, AgX, shifts hues and compresses
        # highlights, so the picture's colours would differ from the surface's.
        scene.display_settings.display_device = "sRGB"
        view.view_transform, view.look = "Standard", "None"
        view.exposure, view.gamma = 0.0, 1.0
        if settings.image == "workbench":
            self._add_plain_copy()
            return studio
        depsgraph = bpy.context.evaluated_depsgraph_get()
        self._stage.add_copies(self._objects, depsgraph, settings.visible_in)
        self._bring_near()
        _show_bare_colors(self._stage)
        remove_doubles(self._stage)
        if settings.image == "eevee":
            _show_both_sides(self._stage)
        scene.world = self._stage.own(bpy.data.worlds.new(scene.name))
        if settings.lights == "scene":
            self._take_lights()
        elif settings.lights == "hdri":
            _light_by_image(self._stage, scene.world, settings.hdri)
        return studio

    def _bring_near(self) -> None:
        """Move copies that are far from the origin to it, because Cycles computes in single
        precision. Not with the scene's lights, which would stay behind."""
        if self._settings.lights == "scene":
            return
        inverse = np.linalg.inv(self._matrix)
        middle = inverse[:3, :3] @ self._surface.bounds.mean(axis=0) + inverse[:3, 3]
        size = self._surface.longest_side * float(np.cbrt(np.linalg.det(inverse[:3, :3])))
        if np.abs(middle).max() > FAR * size:
            self._origin = self._stage.move_by(-middle)

    def _add_plain_copy(self) -> None:
        """Add the surface with simple materials, because Workbench ignores node trees."""
        stage, shading = self._stage, self._stage.scene.display.shading
        before = {*bpy.data.materials, *bpy.data.images}
        stage.add(mesh_from_surface(self._surface, stage.scene.name))
        for made in {*bpy.data.materials, *bpy.data.images} - before:
            stage.own(made)
            if self._remote is not None and isinstance(made, bpy.types.Image):
                made.pack()
        shading.light, shading.show_backface_culling = "STUDIO", False
        if any(material.texture is not None for material in self._surface.materials):
            shading.color_type = "TEXTURE"
        else:
            colored = self._surface.corner_colors is not None
            shading.color_type = "VERTEX" if colored else "MATERIAL"
        stage.scene.display.render_aa = "8"

    def _take_lights(self) -> None:
        source, target = bpy.context.scene, self._stage.scene
        depsgraph = bpy.context.evaluated_depsgraph_get()
        with shown_in("render", depsgraph):
            objects: Any = depsgraph.objects
            lamps = [obj.original for obj in objects if obj.type == "LIGHT"]
        if not lamps and source.world is None:
            raise XRayError(
                "no_lights",
                f"The scene {source.name} has neither lights nor a world to render with.",
                "Add a light, or choose other lights.",
            )
        target.world = source.world
        for lamp in lamps:
            target.collection.objects.link(lamp)


def picture_camera(camera: Camera, size: int) -> Camera:
    """`camera` with `size` px along the longer side and rays through the pixels' centres."""
    scale = size / max(camera.width, camera.height)
    width, height = (max(1, round(n * scale)) for n in (camera.width, camera.height))
    return replace(camera.resized(width, height), pixel_offset=0.5)


def _moved(camera: Camera, matrix: NDArray[np.float64]) -> Camera:
    """`camera` transformed by a (4, 4) similarity."""
    scale = np.cbrt(np.linalg.det(matrix[:3, :3]))
    if not scale > 0 or not np.allclose(
        matrix[:3, :3] @ matrix[:3, :3].T, scale**2 * np.eye(3), rtol=0, atol=1e-4 * scale**2
    ):
        raise ValueError("matrix must be a similarity: rotation, uniform scale, translation")
    pose = matrix @ camera.camera_to_world
    pose[:3, :3] /= scale
    return replace(camera, camera_to_world=pose)


def _set_engine(scene: Any, settings: DatasetSettings) -> None:
    engine = {
        "cycles": "CYCLES",
        "eevee": "BLENDER_EEVEE" if bpy.app.version >= (5, 0, 0) else "BLENDER_EEVEE_NEXT",
        "workbench": "BLENDER_WORKBENCH",
    }[settings.image]
    name = _ENGLISH[settings.image]
    if settings.image != "cycles":
        check_display(name)
    set_engine(scene, engine, name)
    if settings.image == "cycles":
        _set_cycles(scene.cycles, settings)
    elif settings.image == "eevee":
        scene.eevee.taa_render_samples = settings.samples


def _set_cycles(cycles: Any, settings: DatasetSettings) -> None:
    if settings.denoise and not _has_denoiser():
        raise XRayError(
            "no_denoiser",
            "This Blender was built without OpenImageDenoise, as in some Linux distributions.",
            "Turn Denoise off (--no-denoise) and use more samples, or use blender.org's Blender.",
        )
    cycles.samples, cycles.use_denoising = settings.samples, settings.denoise
    cycles.use_animated_seed = False
    cycles.transparent_max_bounces = TRANSPARENT_BOUNCES
    cycles.caustics_reflective = cycles.caustics_refractive = False  # mostly noise
    has_gpu = _has_render_device()
    if settings.device == "gpu" and not has_gpu:
        raise XRayError(
            "no_device",
            "Cycles has no GPU to render on.",
            "Choose one in Preferences > System > Cycles Render Devices, or render on the CPU.",
        )
    cycles.device = "GPU" if has_gpu and settings.device != "cpu" else "CPU"


def _has_denoiser() -> bool:
    import _cycles  # part of Blender, if built with Cycles

    return bool(_cycles.with_openimagedenoise)


def _has_render_device() -> bool:
    """Whether the user's preferences enable a device other than the CPU for Cycles."""
    addon = bpy.context.preferences.addons.get("cycles")
    chosen: Any = addon.preferences if addon else None
    if chosen is None or chosen.compute_device_type == "NONE":
        return False
    chosen.refresh_devices()
    return any(device.use and device.type != "CPU" for device in chosen.devices)


def _show_bare_colors(stage: Stage) -> None:
    """Give faces without a material one that shows their colour attribute, as X-Rays do.

    Without it, Cycles and EEVEE render such faces grey.
    """
    made: dict[str, Any] = {}
    for mesh in {obj.data for obj in stage.objects}:
        attributes = mesh.color_attributes
        index = max(attributes.render_color_index, 0)
        if index >= len(attributes) or all(mesh.materials[:] or [None]):
            continue
        name = attributes[index].name
        if name not in made:
            made[name] = stage.own(bpy.data.materials.new(stage.scene.name))
            _show_attribute(made[name], name)
        if not len(mesh.materials):
            mesh.materials.append(made[name])
        for slot, material in enumerate(mesh.materials):
            if material is None:
                mesh.materials[slot] = made[name]


def _show_attribute(material: Any, name: str) -> None:
    """Make `material` matte, with the colours of the attribute called `name`."""
    tree = with_nodes(material)
    diffuse = tree.nodes.new("ShaderNodeBsdfDiffuse")
    color = tree.nodes.new("ShaderNodeVertexColor")
    color.layer_name = name
    tree.links.new(color.outputs["Color"], diffuse.inputs["Color"])
    output = tree.get_output_node("CYCLES") or tree.nodes.new("ShaderNodeOutputMaterial")
    tree.links.new(diffuse.outputs["BSDF"], output.inputs["Surface"])


def _show_both_sides(stage: Stage) -> None:
    """Replace materials that hide back faces in EEVEE by copies that show them, as in Cycles."""
    shown: dict[str, Any] = {}
    for mesh in {obj.data for obj in stage.objects}:
        for slot, material in enumerate(mesh.materials):
            if material is not None and material.use_backface_culling:
                if material.name_full not in shown:
                    shown[material.name_full] = stage.own(material.copy())
                    shown[material.name_full].use_backface_culling = False
                mesh.materials[slot] = shown[material.name_full]


def _light_by_image(stage: Stage, world: Any, path: str) -> None:
    image = _environment(stage, path)
    background = world_background(world)
    tree = world.node_tree
    node = tree.nodes.new("ShaderNodeTexEnvironment")
    node.image = image
    tree.links.new(node.outputs["Color"], background.inputs["Color"])


def check_environment(path: str) -> None:
    """Raise XRayError `missing_file` or `bad_environment` if `path` cannot light a scene."""
    with TemporaryData() as read:
        _environment(read, path)


def _environment(owner: TemporaryData, path: str) -> Any:
    file = Path(bpy.path.abspath(path))
    if not file.is_file():
        raise XRayError("missing_file", f"There is no environment image {file}.", "Check the path.")
    try:
        image = owner.own(bpy.data.images.load(str(file)))
        readable = image.size[0] > 0
    except RuntimeError:
        readable = False
    if not readable:
        raise XRayError(
            "bad_environment", f"{file} is not an image.", "Use an .hdr, .exr, .png or .jpg file."
        )
    return image
