"""From one image to a mesh in the scene."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
from mathutils import Matrix

from ..xray_addon.errors import XRayError
from . import jobs
from . import runtime_service as service
from .convert import add_camera, add_object, mesh_from_surface, texture_from_image
from .layers import add_layers
from .png import write_png

if TYPE_CHECKING:
    from ..xray_addon.generated import Generated
    from ..xray_addon.progress import ProgressCallback
    from ..xray_addon.settings import GenerateSettings


def generate_mesh(
    image: str | Path | bpy.types.Image,
    settings: GenerateSettings,
    *,
    keep_camera: bool = False,
    keep_layers: bool = False,
    on_progress: ProgressCallback | None = None,
) -> bpy.types.Object:
    """Make a mesh from `image` at the 3D cursor, waiting for it; see `generate_steps`."""
    steps = generate_steps(image, settings, keep_camera=keep_camera, keep_layers=keep_layers)
    obj: bpy.types.Object = jobs.run(steps, on_progress or (lambda _: None), jobs.POLL_INTERVAL)
    return obj


def generate_steps(
    image: str | Path | bpy.types.Image,
    settings: GenerateSettings,
    *,
    keep_camera: bool = False,
    keep_layers: bool = False,
) -> jobs.Steps:
    """The work of `generate_mesh`; the result is the new object.

    Raises XRayError at once for an image that is not there, later what the runtime raises.
    """
    if isinstance(image, bpy.types.Image):
        name = Path(image.name).stem
    else:
        name = Path(image).stem
        if not Path(image).is_file():
            raise XRayError("missing_file", f"There is no image {image}.", "Choose an image file.")

    def steps() -> jobs.Steps:
        with tempfile.TemporaryDirectory(prefix="xray-") as folder:
            path = _image_file(image, Path(folder))
            generated = yield from service.generate_steps(path, settings)
        obj = add_generated(generated, name, keep_camera=keep_camera, keep_layers=keep_layers)
        _remember(obj, settings, image)
        return obj

    # The checks above are made now, not at the first step.
    return steps()


def add_generated(
    generated: Generated, name: str, *, keep_camera: bool = False, keep_layers: bool = False
) -> bpy.types.Object:
    """Put a result into the current scene at the 3D cursor, upright, selected and active."""
    context = bpy.context
    scene = context.scene
    collection = context.collection or scene.collection
    obj = add_object(mesh_from_surface(generated.surface, name), collection)
    move = Matrix.Translation(scene.cursor.location)
    obj.matrix_world = move
    if keep_camera:
        seen = add_camera(generated.camera, f"{obj.name} View", collection)
        seen.matrix_world = move @ seen.matrix_world
    if generated.xray is not None:
        obj["xray_hits"] = generated.xray.hits_per_layer.tolist()
        if keep_layers:
            add_layers(generated.xray, generated.camera, obj.name, parent=obj)
    make_active(obj)
    return obj


def make_active(obj: bpy.types.Object) -> None:
    """Select `obj` alone where the view layer holds it."""
    layer = bpy.context.view_layer
    layer.update()  # a script that removed objects has left it out of date
    for other in list(layer.objects.selected):
        other.select_set(False)
    if obj.name in layer.objects:
        obj.select_set(True)
        layer.objects.active = obj


def _remember(obj: Any, settings: GenerateSettings, image: str | Path | bpy.types.Image) -> None:
    """Keep how the object was made, for whoever wants to make it again."""
    obj["xray_settings"] = settings.to_dict()
    obj["xray_image"] = image.name if isinstance(image, bpy.types.Image) else str(image)


def _image_file(image: str | Path | bpy.types.Image, folder: Path) -> Path:
    """The image's own file where it shows just that, else a copy in `folder`."""
    if not isinstance(image, bpy.types.Image):
        return Path(image)
    if image.source == "FILE" and not image.packed_file and not image.is_dirty:
        path = Path(bpy.path.abspath(image.filepath))
        if path.is_file():
            return path
    pixels = texture_from_image(image)
    if pixels is None:
        raise XRayError(
            "unreadable_image",
            f"The image {image.name} has no pixels.",
            "Reload it, or choose another one.",
        )
    path = folder / "image.png"
    write_png(path, pixels)
    return path
