"""The operators that generate meshes, and those that start from a generated mesh."""

from __future__ import annotations

import os
import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy

from ...xray_addon.errors import XRayError
from ...xray_addon.files.images import images_in
from ...xray_addon.settings.result import ResultSettings
from ...xray_addon.systems import SYSTEMS, find_system
from ...xray_addon.systems.system import Inputs, Need, Output, System
from ..convert.images import own_file
from ..interface.drawing import draw_properties
from ..properties import (
    SHARED,
    absolute_path,
    category_search,
    keep_camera_property,
    keep_layers_property,
    preferences,
    setting_value,
    settings_from_properties,
    system_settings,
    variations_property,
    with_settings,
)
from ..runtime import service
from ..tasks.watching import OperatorResult, TaskOperator
from .generation import (
    Image,
    chosen_for,
    find_image,
    generate_steps,
    image_name,
    input_names,
    inputs_name,
    inputs_of,
    keep_layers_steps,
    made_from,
    next_seed,
    result_of,
    settings_in_full,
    settings_of,
    with_seeds,
)
from .placing import Spot
from .settings import operator_settings, panel_values, set_panel, with_systems

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...xray_addon.settings.generate import GenerateSettings
    from ..tasks import jobs


# The operator's properties for the inputs.
INPUTS = ("image", "mask", "category", "filepath", "directory")
DIALOG_WIDTH = 400  # px at the default size


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

    @classmethod
    def circumstances(cls, context: bpy.types.Context) -> Any:
        """The panel's inputs and settings, and what is installed."""
        return panel_values(context.scene), service.is_available()

    def generations(
        self,
        inputs: list[Inputs],
        settings: list[GenerateSettings],
        spot: Spot,
        result: ResultSettings,
        chosen: Mapping[str, Any] | None = None,
    ) -> list[tuple[str, jobs.Steps]]:
        """One task for each input and each settings; the results are placed side by side.

        chosen : see `generate_steps`.
        """
        made = []
        for given in inputs:
            for each in settings:
                seed = f", Seed {each.seed}" if len(settings) > 1 else ""
                name = inputs_name(given, find_system(each.generator))
                steps = generate_steps(
                    given,
                    each,
                    spot=spot,
                    result=result,
                    chosen=chosen,
                    keep_camera=self.keep_camera,
                    keep_layers=self.keep_layers,
                )
                made.append((f"Generate {name}{seed}", steps))
        return made

    def summary(self, result: Any) -> tuple[str, str]:
        """The new mesh's name and number of faces, and the runtime's notes."""
        text = f"Generated {result.name}: {len(result.data.polygons):,} faces"
        return "INFO", f"{text}. {result['xray_notes']}" if "xray_notes" in result else text


# Blender evaluates the annotations of a class, and a lambda in them would not find SYSTEMS.
def _system_of(operator: Any) -> System:
    return SYSTEMS[operator.generator]


@with_settings(ResultSettings)
@with_systems
class XRAY_OT_generate(_Generating):
    """Make a mesh from each chosen image, side by side starting at the 3D cursor"""

    bl_idname = "xray.generate"
    bl_label = "Generate Mesh"
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
        description="What to generate, for generators with categories",
        search=category_search(_system_of),
        search_options={"SORT"},
        options={"SKIP_SAVE"},
    )
    variations: variations_property({"SKIP_SAVE"})
    keep_camera: keep_camera_property()
    keep_layers: keep_layers_property()
    filter_image: bpy.props.BoolProperty(default=True, options={"HIDDEN"})
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN"})

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> OperatorResult:
        """Ask for missing inputs; the dialog starts with the panel's settings."""
        chosen = preferences()
        if chosen and not self.properties.is_property_set("device"):
            self.device = chosen.device
        if chosen and not self.properties.is_property_set("generator"):
            self.generator = chosen.generator
        system = SYSTEMS[self.generator]
        has_image = self.image or self.filepath or self.directory
        if system.image is Need.REQUIRED and not has_image:
            self._fill_in(context)
            # A file dialog starts in the folder of its path.
            self.filepath = os.path.join(chosen.image_folder, "") if chosen else ""
            context.window_manager.fileselect_add(self)
            return {"RUNNING_MODAL"}
        given = any(self.properties.is_property_set(name) for name in INPUTS)
        if system.image is Need.OPTIONAL and not given:
            scene: Any = context.scene
            for name in ("image", "mask"):
                shown = getattr(scene.xray.generate, name)
                setattr(self, name, shown.name if shown else "")
        asks = system.category is Need.REQUIRED and not self.category
        if asks or (system.image is Need.OPTIONAL and not given):
            self._fill_in(context)
            manager: Any = context.window_manager
            answer: OperatorResult = manager.invoke_props_dialog(
                self, width=DIALOG_WIDTH, confirm_text="Generate"
            )
            return answer
        return self.execute(context)

    def _fill_in(self, context: bpy.types.Context) -> None:
        """Take values that were not given from the panel."""
        scene: Any = context.scene
        panel, system = scene.xray.generate, SYSTEMS[self.generator]
        own = system_settings(panel, system)
        shared = [item.name for item in (*SHARED, *fields(ResultSettings))]
        shared += ["variations", "keep_camera", "keep_layers"]
        owned = [item.name for item in system.settings.own_fields()]
        owned += ["checkpoint", "category"] if system.categories else ["checkpoint"]
        for source, names in ((panel, shared), (own, owned)):
            for name in names:
                if not self.properties.is_property_set(name):
                    setattr(self, name, getattr(source, name))

    def draw(self, _context: bpy.types.Context) -> None:
        """Draw the inputs and settings of the chosen system, beside the files or in a dialog."""
        layout, system = self.layout, SYSTEMS[self.generator]
        layout.use_property_split = True
        layout.use_property_decorate = False
        column = layout.column()
        column.label(text=system.label)
        if system.image is Need.OPTIONAL:
            column.prop_search(self, "image", bpy.data, "images")
        if system.mask is not Need.NONE:
            column.prop_search(self, "mask", bpy.data, "images")
        if system.categories:
            column.prop(self, "category")
        if system.image is not Need.NONE:
            column.prop(self, "remove_background")
        own = system.settings.own_fields()
        draw_properties(column, self, [i.name for i in own if system.settings.counts(i.name, self)])
        if system.seeded:
            draw_properties(column, self, ("seed",))
        column.separator()
        draw_properties(column, self, ("variations", "keep_camera"))
        if Output.XRAY in system.outputs or Output.PICTURES in system.outputs:
            text = "Keep Layers" if Output.XRAY in system.outputs else "Keep Pictures"
            column.prop(self, "keep_layers", text=text)
        column.separator()
        names = [item.name for item in fields(ResultSettings)]
        draw_properties(column, self, [n for n in names if ResultSettings.counts(n, self)])

    def tasks(self, context: bpy.types.Context) -> list[tuple[str, jobs.Steps]]:
        """A generation for each image and seed."""
        chosen = preferences()
        if chosen and (self.filepath or self.directory):
            # The next file dialog starts here.
            chosen.image_folder = self.directory or str(absolute_path(self.filepath).parent)
            context.preferences.is_dirty = True
        settings = with_seeds(operator_settings(self), self.variations)
        result = settings_from_properties(ResultSettings, self)
        return self.generations(self._inputs(), settings, Spot(), result)

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


class _FromGenerated(_Generating):
    """Base class of the operators that generate the active mesh again.

    Settings that are not given are those changed in the panel, and otherwise those of the mesh.
    """

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Require a generated active object whose system is known."""
        if not is_generated(cls, context) or not super().poll(context):
            return False
        try:
            return cls.is_useful(context.object, settings_in_full(context.object))
        except XRayError as error:  # the mesh was made by another version of X-Ray
            cls.poll_message_set(error.message)
            return False

    @classmethod
    def is_useful(cls, obj: Any, settings: GenerateSettings) -> bool:
        """Whether the operator would change anything; if not, it sets a poll message."""
        raise NotImplementedError

    def keeps(self, context: bpy.types.Context, name: str) -> bool:
        """Whether to keep what the property `name` stands for."""
        scene: Any = context.scene
        given = self.properties.is_property_set(name)
        return bool(getattr(self if given else scene.xray.generate, name))


class _MadeAnew(_FromGenerated):
    """Base class of those that make the active mesh anew, with other settings, and put it beside
    it."""

    keep_camera: keep_camera_property()
    keep_layers: keep_layers_property()

    def changed(self, obj: Any, settings: GenerateSettings) -> GenerateSettings:
        """The settings of the new mesh. settings : those of `obj`."""
        raise NotImplementedError

    def tasks(self, context: bpy.types.Context) -> list[tuple[str, jobs.Steps]]:
        """One generation, with the inputs stored in the object.

        What the system chose for the object counts for the new one, too.
        """
        obj: Any = context.object
        inputs, before = inputs_of(obj), settings_of(obj)
        settings = self.changed(obj, before)
        chosen = {
            name: value
            for name, value in chosen_for(obj).items()
            if getattr(settings, name) == getattr(before, name)
        }
        self.keep_camera = self.keeps(context, "keep_camera")
        self.keep_layers = self.keeps(context, "keep_layers")
        spot = Spot(obj.matrix_world.translation.to_tuple(), beside=obj.name)
        return self.generations([inputs], [settings], spot, self._result(context), chosen)

    def _result(self, context: bpy.types.Context) -> ResultSettings:
        scene: Any = context.scene
        values = result_of(context.object).to_dict()
        for item in fields(ResultSettings):
            for source in (scene.xray.generate, self.properties):
                if source.is_property_set(item.name):
                    values[item.name] = setting_value(item, source)
        return ResultSettings(**values)


@with_settings(ResultSettings)
class XRAY_OT_another_seed(_MadeAnew):
    """Make the active mesh again with the next seed and put it beside it.

    If all seeds give the same mesh, as at Variation 0, hidden parts are varied fully
    """

    bl_idname = "xray.another_seed"
    bl_label = "Another Seed"
    bl_options = {"UNDO"}

    @classmethod
    def is_useful(cls, obj: Any, settings: GenerateSettings) -> bool:
        """Require that seeds make a difference."""
        given = [part for part, name in input_names(obj).items() if name]
        if not settings.varied().seed_matters(given):
            label = find_system(settings.generator).label
            cls.poll_message_set(f"With these settings {label} makes the same mesh for every seed")
            return False
        return True

    def changed(self, obj: Any, settings: GenerateSettings) -> GenerateSettings:
        """With the next seed, and hidden parts that vary."""
        varied = settings.varied()
        self._varied = [
            f"{item.name.replace('_', ' ').title()} {getattr(varied, item.name):g}"
            for item in settings.own_fields()
            if getattr(varied, item.name) != getattr(settings, item.name)
        ]
        return replace(varied, seed=next_seed(obj))

    def summary(self, result: Any) -> tuple[str, str]:
        """The seed, and the setting that was changed so that it makes a difference."""
        text = f"{result.name} is made with seed {result['xray_settings']['seed']}"
        if self._varied:
            text += f" and {', '.join(self._varied)}. Before, all seeds gave the same mesh"
        return "INFO", text


class _WithSetting(_MadeAnew):
    """Base class of those that only change one setting."""

    change = ("", "")  # the setting and its new value
    cannot = ""  # what a system without this setting cannot do
    state = ""  # what the new mesh then is or has

    @classmethod
    def is_useful(cls, _obj: Any, settings: GenerateSettings) -> bool:
        """Require a system with this setting, and a mesh that was made with another value."""
        name, value = cls.change
        if name not in (item.name for item in settings.own_fields()):
            label = find_system(settings.generator).label
            cls.poll_message_set(f"{label} cannot {cls.cannot}")
            return False
        if getattr(settings, name) == value:
            cls.poll_message_set(f"It {cls.state} already")
            return False
        return True

    def changed(self, _obj: Any, settings: GenerateSettings) -> GenerateSettings:
        """With the new value."""
        change: Any = dict([self.change])
        return replace(settings, **change)

    def summary(self, result: Any) -> tuple[str, str]:
        """The new mesh, and what it is or has."""
        return "INFO", f"{result.name} {self.state}"


@with_settings(ResultSettings)
class XRAY_OT_set_upright(_WithSetting):
    """Make the active mesh again, set upright, and put it beside it: for a figure that leans.

    The settings are those of the mesh, with Upright set to Always
    """

    bl_idname = "xray.set_upright"
    bl_label = "Set Upright"
    bl_options = {"UNDO"}

    change = ("upright", "always")
    cannot = "set meshes upright"
    state = "is set upright"


@with_settings(ResultSettings)
class XRAY_OT_mirror_back(_WithSetting):
    """Make the active mesh again, with the image mirrored on its back, and put it beside it.

    It is for what looks the same from behind, such as a vehicle from its side, a house or a tree.
    The settings are those of the mesh, with Back set to Mirrored
    """

    bl_idname = "xray.mirror_back"
    bl_label = "Mirror Back"
    bl_options = {"UNDO"}

    change = ("back", "mirrored")
    cannot = "mirror the image on the back"
    state = "has a mirrored back"


class XRAY_OT_keep_layers(_FromGenerated):
    """Generate the active mesh again and keep its layers and pictures; the mesh stays as it is"""

    bl_idname = "xray.keep_layers"
    bl_label = "Keep Layers for This"
    bl_options = {"UNDO"}

    keep_camera: keep_camera_property()

    @classmethod
    def is_useful(cls, obj: Any, settings: GenerateSettings) -> bool:
        """Require a system with layers or pictures, and an object without layers."""
        system = find_system(settings.generator)
        if not system.outputs & {Output.XRAY, Output.PICTURES}:
            cls.poll_message_set(f"{system.label} gives neither layers nor pictures")
            return False
        if obj.get("xray_layers") is not None:
            cls.poll_message_set("It has its layers. See the panel Layers")
            return False
        return True

    def tasks(self, context: bpy.types.Context) -> list[tuple[str, jobs.Steps]]:
        """The generation with the seed and the settings stored in the object."""
        obj: Any = context.object
        steps = keep_layers_steps(obj, keep_camera=self.keeps(context, "keep_camera"))
        return [(f"Keep Layers for {obj.name}", steps)]

    def summary(self, result: Any) -> tuple[str, str]:
        """Whether the layers belong to the mesh."""
        obj, same = result
        if same:
            return "INFO", f"{obj.name} has its layers. See the panel Layers"
        return "WARNING", (
            f"{obj.name} has layers, but of another mesh: "
            "the image, the weights, the device or X-Ray itself have changed since it was made"
        )


class XRAY_OT_use_seed(bpy.types.Operator):
    """Set the panel's seed, generator and settings back to those that made the active mesh"""

    bl_idname = "xray.use_seed"
    bl_label = "Use Its Seed and Settings"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Require a generated active object."""
        return is_generated(cls, context)

    def execute(self, context: bpy.types.Context) -> OperatorResult:
        """Set the panel's settings."""
        scene: Any = context.scene
        try:
            settings = settings_of(context.object)
        except XRayError as error:  # the mesh was made by another version of X-Ray
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        set_panel(scene.xray.generate, settings)
        self.report({"INFO"}, f"The panel has seed {settings.seed} and the settings of this mesh")
        return {"FINISHED"}


class XRAY_OT_copy_command(bpy.types.Operator):
    """Copy the command line that makes the active mesh again, without Blender's window"""

    bl_idname = "xray.copy_command"
    bl_label = "Copy as Command Line"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Require a generated active object."""
        return is_generated(cls, context)

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
        words.append(str(_named_file(inputs.image)))
    if inputs.mask is not None:
        words.append(f"--mask={_named_file(inputs.mask)}")
    if inputs.category:
        words.append(f"--category={inputs.category}")
    words += settings.to_arguments() + result_of(obj).to_arguments()
    return shlex.join([*words, "--out", f"{obj.name}.glb"])


def _named_file(image: Image) -> Path:
    path = own_file(image)
    if path is None or not path.is_file():
        raise XRayError(
            "missing_file",
            f"The image {image_name(image)} is not saved in its own file.",
            "Save the image to a file and generate from that file.",
        )
    return path


def is_generated(cls: Any, context: bpy.types.Context) -> bool:
    """Whether the active object is a generated mesh; if not, `cls` gets a poll message."""
    obj: Any = context.object
    if obj is None or "xray_settings" not in obj:
        cls.poll_message_set("Select a generated mesh")
        return False
    return True


CLASSES: tuple[type[Any], ...] = (
    XRAY_OT_generate,
    XRAY_OT_another_seed,
    XRAY_OT_set_upright,
    XRAY_OT_mirror_back,
    XRAY_OT_keep_layers,
    XRAY_OT_use_seed,
    XRAY_OT_copy_command,
)
