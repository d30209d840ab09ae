"""The operators that generate meshes, and that generate them again."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy

from ...xray_addon.errors import XRayError
from ...xray_addon.settings.result import ResultSettings
from ...xray_addon.systems import SYSTEMS, find_system
from ...xray_addon.systems.system import Inputs, Need
from ..properties import (
    KEEP_CAMERA,
    KEEP_LAYERS,
    VARIATIONS,
    absolute_path,
    chosen_system,
    preferences,
    settings_from_properties,
    with_settings,
)
from ..runtime import service
from ..tasks.watching import OperatorResult, TaskOperator
from .generation import (
    Image,
    Row,
    find_image,
    generate_steps,
    image_name,
    images_in,
    inputs_name,
    made_from,
    result_of,
    with_seeds,
)
from .settings import operator_settings, set_from_panel, with_systems

if TYPE_CHECKING:
    from ...xray_addon.settings.generate import GenerateSettings
    from ..tasks import jobs


# The operator's properties that say what a mesh is made from.
INPUTS = ("image", "mask", "category", "filepath", "directory")


class _Generating(TaskOperator):
    """Base class of the operators here."""

    bl_label = "Generate"
    keep_camera = False
    keep_layers = False

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Require a runtime and Object Mode."""
        if context.mode != "OBJECT":
            cls.poll_message_set("Go to Object Mode first")
            return False
        return service.poll_available(cls)

    def generations(
        self,
        inputs: list[Inputs],
        settings: list[GenerateSettings],
        row: Row,
        result: ResultSettings,
    ) -> list[tuple[str, jobs.Steps]]:
        """A task for each of the inputs with each of the settings; results are side by side."""
        made = []
        for given in inputs:
            for each in settings:
                seed = f", Seed {each.seed}" if len(settings) > 1 else ""
                name = inputs_name(given, find_system(each.generator))
                steps = generate_steps(
                    given,
                    each,
                    row=row,
                    result=result,
                    keep_camera=self.keep_camera,
                    keep_layers=self.keep_layers,
                )
                made.append((f"Generate {name}{seed}", steps))
        return made

    def summary(self, result: Any) -> tuple[str, str]:
        """The new mesh's name and number of faces, and the runtime's notes."""
        text = f"Generated {result.name}: {len(result.data.polygons):,} faces"
        return "INFO", f"{text}. {result['xray_notes']}" if "xray_notes" in result else text


@with_settings(ResultSettings)
@with_systems
class XRAY_OT_generate(_Generating):
    """Make a mesh from each chosen image, side by side starting at the 3D cursor"""

    bl_idname = "xray.generate"
    bl_label = "Generate Mesh from Image"
    # Without REGISTER, because the redo panel would run the model again at every change.
    bl_options = {"UNDO"}

    filepath: bpy.props.StringProperty(
        name="Image File", subtype="FILE_PATH", options={"SKIP_SAVE"}
    )
    directory: bpy.props.StringProperty(
        name="Folder",
        description="Folder of the image files; without files, all images in it are used",
        subtype="DIR_PATH",
        options={"SKIP_SAVE"},
    )
    files: bpy.props.CollectionProperty(
        name="Image Files",
        description="Names of image files in the folder",
        type=bpy.types.OperatorFileListElement,
        options={"SKIP_SAVE"},
    )
    image: bpy.props.StringProperty(
        name="Image",
        description="Name of an image in this file; takes precedence over image files",
        options={"SKIP_SAVE"},
    )
    mask: bpy.props.StringProperty(
        name="Mask",
        description="Name of an image in this file, or an image file: white where the image is "
        "redrawn",
        options={"SKIP_SAVE"},
    )
    category: bpy.props.StringProperty(
        name="Category",
        description="What to generate, for systems with categories",
        options={"SKIP_SAVE"},
    )
    variations: bpy.props.IntProperty(
        name="Meshes", description=VARIATIONS, default=1, min=1, max=64, options={"SKIP_SAVE"}
    )
    keep_camera: bpy.props.BoolProperty(name="Keep View", description=KEEP_CAMERA)
    keep_layers: bpy.props.BoolProperty(name="Keep Layers", description=KEEP_LAYERS)
    filter_image: bpy.props.BoolProperty(default=True, options={"HIDDEN"})
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN"})

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> OperatorResult:
        """Ask for files if the system needs an image and none is given; if it does not need one,
        operator search and menus take what the panel shows."""
        chosen = preferences()
        if chosen and not self.properties.is_property_set("device"):
            self.device = chosen.device
        if chosen and not self.properties.is_property_set("generator"):
            self.generator = chosen.generator
        needs_image = SYSTEMS[self.generator].image is Need.REQUIRED
        if needs_image and not self.image and not self.filepath and not self.directory:
            context.window_manager.fileselect_add(self)
            return {"RUNNING_MODAL"}
        if not any(self.properties.is_property_set(name) for name in INPUTS):
            self._take_from_panel(context)
        return self.execute(context)

    def _take_from_panel(self, context: bpy.types.Context) -> None:
        """Take inputs and settings that are not given from the panel, if it shows this system."""
        if self.generator != chosen_system().name:
            return
        own = self.properties
        names = [item.identifier for item in own.rna_type.properties if not item.is_readonly]
        given = {name: getattr(self, name) for name in names if own.is_property_set(name)}
        scene: Any = context.scene
        set_from_panel(self, scene.xray.generate)
        for name, value in given.items():
            setattr(self, name, value)

    def tasks(self, _context: bpy.types.Context) -> list[tuple[str, jobs.Steps]]:
        """A generation for each image and seed."""
        settings = with_seeds(operator_settings(self), self.variations)
        result = settings_from_properties(ResultSettings, self)
        return self.generations(self._inputs(), settings, Row(), result)

    def _inputs(self) -> list[Inputs]:
        mask: Image | None = None
        if self.mask:
            mask = bpy.data.images.get(self.mask) or absolute_path(self.mask)
        images: list[Image] | list[None] = self._images() or [None]
        return [Inputs(image, mask, self.category) for image in images]

    def _images(self) -> list[Image]:
        if self.image:
            return [find_image(self.image)]
        names = [file.name for file in self.files if file.name]
        if names:
            folder = absolute_path(self.directory) if self.directory else Path()
            return [folder / name for name in names]
        chosen = self.filepath or self.directory
        if not chosen:
            return []
        path = absolute_path(chosen)
        return list(images_in(path)) if path.is_dir() else [path]


class XRAY_OT_regenerate(_Generating):
    """Make the active mesh again from the same inputs and put it beside the old one"""

    bl_idname = "xray.regenerate"
    bl_label = "Regenerate"
    bl_options = {"UNDO"}

    another_seed: bpy.props.BoolProperty(
        name="Another Seed", description="Use the next seed instead of the same one", default=False
    )

    @classmethod
    def description(cls, _context: bpy.types.Context, properties: Any) -> str:
        """The tooltip for the same or for another seed."""
        how = "with the next seed" if properties.another_seed else "with the same settings"
        return f"Make the active mesh again {how} and put it beside the old one"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """The active object must be a generated one."""
        return _is_generated(cls, context) and super().poll(context)

    def tasks(self, context: bpy.types.Context) -> list[tuple[str, jobs.Steps]]:
        """One generation, with the settings stored in the object."""
        inputs, settings = made_from(context.object)
        if self.another_seed:
            settings = with_seeds(settings, 2)[1]
        result = result_of(context.object)
        return self.generations([inputs], [settings], Row.beside(context.object), result)


class XRAY_OT_copy_command(bpy.types.Operator):
    """Copy the command line that makes the active mesh again, without Blender's window"""

    bl_idname = "xray.copy_command"
    bl_label = "Copy as Command Line"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """The active object must be a generated one."""
        return _is_generated(cls, context)

    def execute(self, context: bpy.types.Context) -> OperatorResult:
        """Copy the command to the clipboard."""
        try:
            context.window_manager.clipboard = command_line(context.object)
        except XRayError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self.report({"INFO"}, "The command line was copied to the clipboard")
        return {"FINISHED"}


def command_line(obj: Any) -> str:
    """The command that makes `obj` again. Raises XRayError if an image is not in a file."""
    inputs, settings = made_from(obj)
    words = ["blender", "-c", "xray", "generate"]
    if inputs.image is not None:
        words.append(str(_own_file(inputs.image)))
    if inputs.mask is not None:
        words.append(f"--mask={_own_file(inputs.mask)}")
    if inputs.category:
        words.append(f"--category={inputs.category}")
    words += settings.to_arguments() + result_of(obj).to_arguments()
    return shlex.join([*words, "--out", f"{obj.name}.glb"])


def _own_file(image: Image) -> Path:
    path = Path(bpy.path.abspath(image.filepath) if isinstance(image, bpy.types.Image) else image)
    if not path.is_file():
        raise XRayError(
            "missing_file",
            f"The image {image_name(image)} is not saved in its own file.",
            "Save the image to a file and generate from that file.",
        )
    return path


def _is_generated(cls: Any, context: bpy.types.Context) -> bool:
    obj: Any = context.object
    if obj is None or "xray_settings" not in obj:
        cls.poll_message_set("Select a generated mesh")
        return False
    return True


CLASSES: tuple[type[Any], ...] = (XRAY_OT_generate, XRAY_OT_regenerate, XRAY_OT_copy_command)
