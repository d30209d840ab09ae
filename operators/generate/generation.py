"""Generates meshes in the scene from an image, or from a system's other inputs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy

from ...xray_addon.errors import XRayError
from ...xray_addon.files.png import write_png
from ...xray_addon.progress import Progress
from ...xray_addon.settings.generate import GenerateSettings
from ...xray_addon.settings.result import ResultSettings
from ...xray_addon.systems import find_system
from ...xray_addon.systems.system import Inputs, System
from ..convert.images import own_file, shared_file, shown_pixels
from ..runtime import service
from ..tasks import jobs
from ..tasks.lasting import Lasting
from .adding import add_steps, keep_steps
from .placing import Spot
from .settings import settings_of_older

if TYPE_CHECKING:
    from ...xray_addon.generated import Generated
    from ...xray_addon.progress import ProgressCallback


WRITING = Progress("write", message="Writing the image")

IMAGES = ("image", "mask")  # the inputs that are images


Image = str | Path | bpy.types.Image

# The last seed of `next_seed` for each system and inputs; its mesh may not exist yet.
_given_seeds: dict[tuple[str, ...], int] = {}


def generate_mesh(
    inputs: Inputs | Image,
    settings: GenerateSettings,
    *,
    result: ResultSettings | None = None,
    keep_camera: bool = False,
    keep_layers: bool = False,
    on_generated: Callable[[Generated], None] | None = None,
    on_progress: ProgressCallback | None = None,
) -> bpy.types.Object:
    """Generate a mesh at the 3D cursor and wait for it; see `generate_steps`."""
    steps = generate_steps(
        inputs,
        settings,
        result=result,
        keep_camera=keep_camera,
        keep_layers=keep_layers,
        on_generated=on_generated,
    )
    obj: bpy.types.Object = jobs.run(steps, on_progress or (lambda _: None), jobs.POLL_INTERVAL)
    return obj


def generate_steps(
    inputs: Inputs | Image,
    settings: GenerateSettings,
    *,
    name: str = "",
    spot: Spot | None = None,
    result: ResultSettings | None = None,
    chosen: Mapping[str, Any] | None = None,
    keep_camera: bool = False,
    keep_layers: bool = False,
    on_generated: Callable[[Generated], None] | None = None,
) -> jobs.Steps:
    """The steps of `generate_mesh`; the result is the new object.

    inputs : image and mask as paths or image datablocks. A single image is accepted too.
    name : of the object; by default that of the image, the category or the system.
    spot : where the object is placed; by default at the 3D cursor.
    result : how the mesh is finished; by default it is not changed.
    chosen : values for settings that are left to the system, from another mesh (`chosen_for`).
    on_generated : called with the system's result before it is added.

    Raises XRayError at once for unsupported inputs and missing images, and later those of the
    runtime. If the mesh cannot be finished, it is added unfinished before that error is raised.
    """
    given = Inputs.of(inputs)
    chosen = dict(chosen or {})
    in_runtime = _in_runtime(given, replace(settings, **chosen))
    name = name or inputs_name(given, find_system(settings.generator))
    source = _source(given)

    def steps() -> jobs.Steps:
        generated = yield from in_runtime
        if on_generated is not None:
            on_generated(generated)
        obj, failure = yield from add_steps(
            generated,
            name,
            spot or Spot(),
            result or ResultSettings(),
            keep_camera=keep_camera,
            keep_layers=keep_layers,
        )
        obj["xray_settings"] = settings.to_dict()
        for key, value in source.items():
            obj[key] = value
        if generated.notes:
            obj["xray_notes"] = " ".join(generated.notes)
        if every_choice := chosen | dict(generated.chosen):
            obj["xray_chosen"] = every_choice
        if failure is not None:
            message = f"{failure.message} {obj.name} was added without the settings of Result."
            raise XRayError(failure.code, message, failure.remedy, failure.log)
        return obj

    return steps()


def keep_layers_steps(obj: Any, *, keep_camera: bool = False) -> jobs.Steps:
    """Generate `obj` again and add what was not kept: its layers and pictures.

    keep_camera : also add its view. The mesh does not change. The result is `obj`, and whether the
    X-Ray is the one it was made from.

    Raises XRayError as `generate_steps`, and `object_gone`.
    """
    inputs, settings = made_from(obj)
    hits = list(obj.get("xray_hits", ()))
    in_runtime, kept = _in_runtime(inputs, settings), Lasting(obj)

    def steps() -> jobs.Steps:
        generated = yield from in_runtime
        found = yield from keep_steps(generated, kept, keep_camera=keep_camera)
        xray = generated.xray
        return found, xray is None or xray.hits_per_layer.tolist() == hits

    return steps()


def _in_runtime(inputs: Inputs, settings: GenerateSettings) -> jobs.Steps:
    """The `Generated` of `inputs`. Raises XRayError at once for missing or unsupported inputs."""
    find_system(settings.generator).check(inputs)
    for file in (inputs.image, inputs.mask):
        if isinstance(file, str | Path) and not Path(file).is_file():
            raise XRayError("missing_file", f"There is no image {file}.", "Choose an image file.")
    return _with_files(inputs, lambda files: service.generate_steps(files, settings))


def cut_out_steps(image: Image, settings: GenerateSettings) -> jobs.Steps:
    """The `CutOut` of `image`: the object as a generator sees it."""
    return _with_files(Inputs(image), lambda files: service.cut_out_steps(files.image, settings))


def _with_files(inputs: Inputs, work: Callable[[Inputs], jobs.Steps]) -> jobs.Steps:
    """Run `work` on image files; the result is that of `work`."""
    # Replace datablocks by their file or name now, because they may be gone later, e.g. after Undo
    # or File > New.
    kept: dict[str, tuple[Path | None, str | Path]] = {
        part: (
            shared_file(image),
            image.name if isinstance(image, bpy.types.Image) else Path(image),
        )
        for part in IMAGES
        if (image := getattr(inputs, part)) is not None
    }

    def steps() -> jobs.Steps:
        with tempfile.TemporaryDirectory(prefix="xray-") as folder:
            files: dict[str, Any] = {}
            for part, (file, source) in kept.items():
                if file is None:
                    file = Path(folder, f"{part}.png")
                    yield from _write_steps(source, file)
                files[part] = file
            result = yield from work(replace(inputs, **files))
        return result

    return steps()


def _write_steps(image: str | Path, copy: Path) -> jobs.Steps:
    """Copy a datablock, given by name, or a file that only Blender reads to the file `copy`."""
    pixels = shown_pixels(image if isinstance(image, Path) else find_image(image))
    yield from jobs.in_thread(lambda: write_png(copy, pixels), WRITING)


def inputs_name(inputs: Inputs, system: System) -> str:
    """The name for the mesh of `inputs`: that of the image, the category or the system."""
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


def with_seeds(settings: GenerateSettings, count: int) -> list[GenerateSettings]:
    """The same settings with `count` consecutive seeds, starting with their own."""
    return [replace(settings, seed=(settings.seed + i) % 2**31) for i in range(count)]


def next_seed(obj: Any) -> int:
    """The next seed not yet used for the inputs of `obj`, in this file or this session."""
    key = _inputs_key(obj)
    others: Any = bpy.data.objects
    used = [
        int(other["xray_settings"]["seed"])
        for other in others
        if "xray_settings" in other and _inputs_key(other) == key
    ]
    seed = (max([*used, _given_seeds.get(key, -1)]) + 1) % 2**31
    _given_seeds[key] = seed
    return seed


def _inputs_key(obj: Any) -> tuple[str, ...]:
    """The system and the inputs that `obj` was made with."""
    names = input_names(obj)
    parts = (names.get(part, "") for part in (*IMAGES, "category"))
    return (obj["xray_settings"].get("generator", ""), *parts)


def add_generated(
    generated: Generated,
    name: str,
    result: ResultSettings | None = None,
    *,
    keep_camera: bool = False,
    keep_layers: bool = False,
) -> bpy.types.Object:
    """Add a result to the current scene at the 3D cursor: upright, selected and active.

    Raises XRayError if it was added but could not be finished according to `result`.
    """
    steps = add_steps(
        generated,
        name,
        Spot(),
        result or ResultSettings(),
        keep_camera=keep_camera,
        keep_layers=keep_layers,
    )
    obj, failure = jobs.run(steps)
    if failure is not None:
        raise failure
    added: bpy.types.Object = obj
    return added


def made_from(obj: Any) -> tuple[Inputs, GenerateSettings]:
    """The inputs that `obj` was made with, and the settings that make it again.

    Raises XRayError `missing_image` if an image is neither in this file nor on the disk.
    """
    return inputs_of(obj), settings_in_full(obj)


def inputs_of(obj: Any) -> Inputs:
    """The inputs that `obj` was made with. Raises XRayError as `made_from`."""
    kept = input_names(obj)
    files = obj["xray_files"].to_dict() if "xray_files" in obj else {}
    image, mask = (_kept_image(obj, kept.get(part, ""), files.get(part)) for part in IMAGES)
    return Inputs(image, mask, kept.get("category", ""))


def input_names(obj: Any) -> dict[str, str]:
    """The names of the inputs that `obj` was made with, by the fields of `Inputs`; "" for none."""
    # Older files store only the image.
    kept = obj["xray_inputs"] if "xray_inputs" in obj else {"image": obj.get("xray_image", "")}
    return {part: str(name) for part, name in kept.items()}


def settings_of(obj: Any) -> GenerateSettings:
    """The settings that `obj` was made with."""
    return settings_of_older(obj["xray_settings"].to_dict())


def settings_in_full(obj: Any) -> GenerateSettings:
    """The settings that `obj` was made with, and what the system chose for those left to it."""
    return settings_of_older(obj["xray_settings"].to_dict() | chosen_for(obj))


def chosen_for(obj: Any) -> dict[str, Any]:
    """What the system chose for the settings of `obj` that were left to it, by name."""
    return obj["xray_chosen"].to_dict() if "xray_chosen" in obj else {}


def _kept_image(obj: Any, name: str, file: str | None) -> Image | None:
    if not name:
        return None
    path = Path(file or name)
    found: Image | None = bpy.data.images.get(name)
    # Another image may have got the name since.
    is_other = found is None or (file is not None and own_file(found) not in (None, path))
    if is_other and path.is_file():
        found = path
    if found is None:
        raise XRayError(
            "missing_image",
            f"The image {name}, which {obj.name} was made from, is not in this file.",
            "Open the image under this name, or generate from another one.",
        )
    return found


def result_of(obj: Any) -> ResultSettings:
    """The settings with which the mesh of `obj` was finished."""
    stored = obj.get("xray_result")
    return ResultSettings.from_dict(stored.to_dict()) if stored else ResultSettings()


def _source(inputs: Inputs) -> dict[str, dict[str, str]]:
    """What an object stores about its inputs: names, and the files of datablocks.

    Read before the work begins, because Undo and File > New remove datablocks.
    """
    names, files = {"category": inputs.category}, {}
    for part in IMAGES:
        image = getattr(inputs, part)
        is_datablock = isinstance(image, bpy.types.Image)
        names[part] = image.name if is_datablock else str(image or "")
        if is_datablock and (file := own_file(image)):
            files[part] = str(file)
    return {"xray_inputs": names, "xray_files": files}
