"""Generates meshes in the scene from an image, or whatever else a system takes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
from mathutils import Matrix, Vector

from ...xray_addon.errors import XRayError
from ...xray_addon.files.png import write_png
from ...xray_addon.progress import Progress
from ...xray_addon.settings.generate import GenerateSettings
from ...xray_addon.settings.result import ResultSettings
from ...xray_addon.systems import find_system
from ...xray_addon.systems.system import Inputs, System
from ..convert import MeshArrays, add_camera, add_object, mesh_steps, texture_from_image
from ..convert.meshes import make_active, new_image
from ..layers.layers import add_layers, scale_layers
from ..results import finish, vertex_positions
from ..runtime import service
from ..tasks import jobs
from .settings import settings_of_older

if TYPE_CHECKING:
    from ...xray_addon.generated import Generated
    from ...xray_addon.progress import ProgressCallback


ADDING = Progress("add", message="Adding the mesh")

# Image formats that both Blender and the runtime can read.
IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".png", ".tga", ".tif", ".tiff", ".webp"}
)
GAP = 0.1  # between two results side by side, in widths of the left one

Image = str | Path | bpy.types.Image


@dataclass
class Row:
    """Places results side by side: the first at `start` (None: the 3D cursor), others to its right.

    edge : x of the next result's left edge; None before the first.
    """

    start: Sequence[float] | None = None
    edge: float | None = None

    @classmethod
    def beside(cls, obj: Any) -> Row:
        """A row that continues to the right of `obj`."""
        xs = [(obj.matrix_world @ Vector(corner)).x for corner in obj.bound_box]
        return cls(tuple(obj.matrix_world.translation), max(xs) + GAP * (max(xs) - min(xs)))

    def place(self, low: float, high: float) -> Vector:
        """The location for an object whose mesh extends from `low` to `high` in x."""
        place: Any = Vector(self.start or bpy.context.scene.cursor.location.to_tuple())
        self.start = (place.x, place.y, place.z)
        if self.edge is not None:
            place.x = self.edge - low
        self.edge = place.x + high + GAP * (high - low)
        return place


def generate_mesh(
    inputs: Inputs | Image,
    settings: GenerateSettings,
    *,
    result: ResultSettings | None = None,
    keep_camera: bool = False,
    keep_layers: bool = False,
    on_progress: ProgressCallback | None = None,
) -> bpy.types.Object:
    """Generate a mesh at the 3D cursor and wait for it; see `generate_steps`."""
    steps = generate_steps(
        inputs, settings, result=result, keep_camera=keep_camera, keep_layers=keep_layers
    )
    obj: bpy.types.Object = jobs.run(steps, on_progress or (lambda _: None), jobs.POLL_INTERVAL)
    return obj


def generate_steps(
    inputs: Inputs | Image,
    settings: GenerateSettings,
    *,
    row: Row | None = None,
    result: ResultSettings | None = None,
    keep_camera: bool = False,
    keep_layers: bool = False,
) -> jobs.Steps:
    """The steps of `generate_mesh`; the result is the new object.

    inputs : image and mask as paths or image datablocks. A single image is accepted too.
    row : where the object is placed; by default at the 3D cursor.
    result : how the mesh is finished; by default it is not changed.

    Raises XRayError at once for unsupported inputs and missing images, and later those of the
    runtime.
    """
    given = Inputs.of(inputs)
    system = find_system(settings.generator)
    system.check(given)
    for file in (given.image, given.mask):
        if isinstance(file, str | Path) and not Path(file).is_file():
            raise XRayError("missing_file", f"There is no image {file}.", "Choose an image file.")
    name = inputs_name(given, system)

    def steps() -> jobs.Steps:
        source, generated = yield from in_runtime
        obj = yield from add_steps(
            generated,
            name,
            row or Row(),
            result or ResultSettings(),
            keep_camera=keep_camera,
            keep_layers=keep_layers,
        )
        _remember(obj, settings, source, generated.notes)
        return obj

    # Checked above, outside the generator, so that errors are raised at the call.
    in_runtime = _with_files(given, lambda files: service.generate_steps(files, settings))
    return steps()


def cut_out_steps(image: Image, settings: GenerateSettings) -> jobs.Steps:
    """The `CutOut` of `image`: the object as a generator sees it."""
    _, cut = yield from _with_files(
        Inputs(image), lambda files: service.cut_out_steps(files.image, settings)
    )
    return cut


def _with_files(inputs: Inputs, work: Callable[[Inputs], jobs.Steps]) -> jobs.Steps:
    """Run `work` on image files. The result is the inputs at that time and the work's result."""
    # Kept by name, because an image may be gone when its turn comes, e.g. after File > New.
    packed = {
        name: image.name
        for name in ("image", "mask")
        if isinstance(image := getattr(inputs, name), bpy.types.Image)
    }

    def steps() -> jobs.Steps:
        found: dict[str, Any] = {name: find_image(datablock) for name, datablock in packed.items()}
        present = replace(inputs, **found)
        with tempfile.TemporaryDirectory(prefix="xray-") as folder:
            files: dict[str, Any] = {
                name: _image_file(image, Path(folder) / f"{name}.png")
                for name in ("image", "mask")
                if (image := getattr(present, name)) is not None
            }
            result = yield from work(replace(present, **files))
        return present, result

    return steps()


def inputs_name(inputs: Inputs, system: System) -> str:
    """The name of the mesh of `inputs`: that of the image, the category or the system."""
    if inputs.image is not None:
        return image_name(inputs.image)
    return inputs.category.title() or system.label


def image_name(image: Image) -> str:
    """The name of an image datablock or file, without its suffix."""
    return Path(image.name if isinstance(image, bpy.types.Image) else image).stem


def find_image(name: str) -> bpy.types.Image:
    """The image datablock `name`. Raises XRayError `missing_image`."""
    image: Any = bpy.data.images.get(name)
    if image is None:
        raise XRayError("missing_image", f"There is no image {name}.", "Choose another one.")
    return image


def images_in(folder: Path) -> list[Path]:
    """The image files in `folder`, by name. Raises XRayError `no_images`."""
    found = sorted(
        path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    if not found:
        raise XRayError("no_images", f"{folder} contains no images.", "Choose another folder.")
    return found


def with_seeds(settings: GenerateSettings, count: int) -> list[GenerateSettings]:
    """The same settings with `count` consecutive seeds, starting with their own."""
    return [replace(settings, seed=(settings.seed + i) % 2**31) for i in range(count)]


def add_generated(
    generated: Generated,
    name: str,
    result: ResultSettings | None = None,
    *,
    keep_camera: bool = False,
    keep_layers: bool = False,
) -> bpy.types.Object:
    """Add a result to the current scene at the 3D cursor: upright, selected and active."""
    steps = add_steps(
        generated,
        name,
        Row(),
        result or ResultSettings(),
        keep_camera=keep_camera,
        keep_layers=keep_layers,
    )
    obj: bpy.types.Object = jobs.run(steps)
    return obj


def add_steps(
    generated: Generated,
    name: str,
    row: Row,
    result: ResultSettings,
    *,
    keep_camera: bool,
    keep_layers: bool,
) -> jobs.Steps:
    """`add_generated` in short steps that keep Blender responsive; the result is the new object."""
    arrays = yield from jobs.in_thread(lambda: MeshArrays.of(generated.surface), ADDING)
    building = mesh_steps(arrays, name)
    try:
        while True:
            try:
                next(building)
            except StopIteration as end:
                mesh = end.value
                break
            yield ADDING
    finally:
        building.close()
    context = bpy.context
    scene = context.scene
    collection = context.collection or scene.collection
    obj = add_object(mesh, collection)
    yield ADDING
    factor = finish(obj, result)
    xs = vertex_positions(obj.data)[:, 0]
    place = row.place(float(xs.min()), float(xs.max())) if len(xs) else scene.cursor.location
    move = Matrix.Translation(place)
    obj.matrix_world = move
    if keep_camera:
        seen = add_camera(generated.camera, f"{obj.name} View", collection)
        seen.location *= factor
        seen.location += place
    for title, picture in generated.pictures.items():
        image = new_image(f"{obj.name} {title}", picture)
        image.use_fake_user = keep_layers
    if generated.xray is not None:
        obj["xray_hits"] = generated.xray.hits_per_layer.tolist()
        if keep_layers:
            layers = add_layers(generated.xray, generated.camera, obj.name, parent=obj)
            scale_layers(layers, factor)
    make_active(obj)
    return obj


def made_from(obj: Any) -> tuple[Inputs, GenerateSettings]:
    """The inputs and settings that `obj` was made with. Raises XRayError if an image is gone."""
    settings = settings_of_older(obj["xray_settings"].to_dict())
    # Older files store only the image.
    kept = obj["xray_inputs"].to_dict() if "xray_inputs" in obj else {"image": obj["xray_image"]}
    image, mask = (
        bpy.data.images.get(name) or Path(name) if (name := str(kept.get(part, ""))) else None
        for part in ("image", "mask")
    )
    return Inputs(image, mask, str(kept.get("category", ""))), settings


def result_of(obj: Any) -> ResultSettings:
    """The settings with which the mesh of `obj` was finished."""
    return ResultSettings.from_dict(obj["xray_result"].to_dict())


def _remember(obj: Any, settings: GenerateSettings, inputs: Inputs, notes: Sequence[str]) -> None:
    """Store in the object how it was made, so that it can be made again."""
    obj["xray_settings"] = settings.to_dict()
    images = {"image": inputs.image, "mask": inputs.mask}
    names = {
        part: image.name if isinstance(image, bpy.types.Image) else str(image or "")
        for part, image in images.items()
    }
    obj["xray_inputs"] = names | {"category": inputs.category}
    if notes:
        obj["xray_notes"] = " ".join(notes)


def _image_file(image: Image, copy: Path) -> Path:
    """The image's own file if it has the same pixels; otherwise the image is written to `copy`."""
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
    write_png(copy, pixels)
    return copy
