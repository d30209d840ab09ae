"""Blender properties made from the settings dataclasses, and the properties stored in a scene."""

from __future__ import annotations

import math
from dataclasses import fields
from inspect import get_annotations
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import bpy
import numpy as np

from ..xray_addon.errors import XRayError
from ..xray_addon.settings.base import Settings
from ..xray_addon.settings.capture import CaptureSettings
from ..xray_addon.settings.dataset import DatasetSettings
from ..xray_addon.settings.generate import DEFAULT_GENERATOR, GenerateSettings
from ..xray_addon.settings.omage import OmageSettings
from ..xray_addon.settings.result import ResultSettings
from ..xray_addon.settings.slices import SliceSettings
from ..xray_addon.systems import SYSTEMS
from ..xray_addon.systems.system import System
from .interface.drawing import USE
from .interface.registration import extension_package, register_classes, unregister_classes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from dataclasses import Field

_T = TypeVar("_T")

# Options of a path property that may begin with //. Before Blender 4.5 every path may.
PATH_OPTIONS: set[Any] = {"PATH_SUPPORTS_BLEND_RELATIVE"} if bpy.app.version >= (4, 5, 0) else set()

# Typed as if it returned nothing, because property calls are used as annotations.
_pointer_property: Any = bpy.props.PointerProperty

# Blender's subtype for each unit of a setting, and the unit that Blender uses internally.
_SUBTYPES: dict[str, dict[str, str]] = {
    "degrees": {"subtype": "ANGLE"},
    "metres": {"subtype": "DISTANCE", "unit": "LENGTH"},
    "percent": {"subtype": "PERCENTAGE"},
    "pixels": {"subtype": "PIXEL"},
    "factor": {"subtype": "FACTOR"},
}


def setting_properties(items: Iterable[Field[Any]], options: Iterable[str] = ()) -> dict[str, Any]:
    """Blender properties for the fields of a settings dataclass, by name.

    A setting that is off at 0 has two: the value, and the checkbox `use_<name>`, which is on if the
    value is not 0.
    """
    properties = {}
    for item in items:
        if "on" in item.metadata:
            properties[USE + item.name] = _checkbox(item)
        properties[item.name] = setting_property(item, options)
    return properties


def with_settings(cls: type[Settings]) -> Callable[[type[_T]], type[_T]]:
    """Class decorator: give a Blender class the properties of a settings dataclass."""

    def decorate(target: type[_T]) -> type[_T]:
        own = setting_properties(fields(cls))  # type: ignore[arg-type]
        target.__annotations__ = {**own, **get_annotations(target)}
        return target

    return decorate


def settings_from_properties(cls: type[_T], source: Any) -> _T:
    """The settings dataclass with the values of `source`'s properties."""
    return cls(**{item.name: setting_value(item, source) for item in fields(cls)})  # type: ignore[arg-type]


def setting_value(item: Field[Any], source: Any) -> Any:
    """A setting's value from its property, in the setting's own unit.

    Undoes the rounding of Blender's single-precision floats.
    """
    value = getattr(source, item.name)
    if item.metadata.get("path"):
        return bpy.path.abspath(value)
    if not isinstance(item.default, float):
        return value
    factor = _blender_units(item)
    if value == np.float32(item.default * factor):
        return item.default
    return float(f"{value / factor:.7g}")


def set_setting(item: Field[Any], target: Any, value: Any) -> None:
    """Set a setting's property to `value`, in the setting's own unit."""
    setattr(target, item.name, value * _blender_units(item) if "unit" in item.metadata else value)


def _blender_units(item: Field[Any]) -> float:
    """The value of Blender's property for 1 of the setting: radians, and the scene's lengths."""
    unit = item.metadata.get("unit")
    if unit == "degrees":
        return math.pi / 180
    if unit == "metres":
        return 1 / float(bpy.context.scene.unit_settings.scale_length)
    return 1


def copy_settings(items: Iterable[Field[Any]], source: Any, target: Any) -> None:
    """Set the properties of `target` to those of `source`."""
    for item in items:
        setattr(target, item.name, getattr(source, item.name))


def setting_property(item: Field[Any], options: Iterable[str] = ()) -> Any:
    """A Blender property for a field."""
    meta: dict[str, Any] = dict(item.metadata)
    common: dict[str, Any] = {
        "name": _label(item),
        "description": meta["help"],
        "default": item.default,
        "options": set(options),
    }
    if item.name == "generator":
        systems = [(system.name, system.label, system.about) for system in SYSTEMS.values()]
        return bpy.props.EnumProperty(items=systems, **common)
    if choices := meta.get("choices"):
        labels: dict[str, str] = meta.get("labels", {})
        named = [(name, labels.get(name, name.title()), choices[name]) for name in choices]
        return bpy.props.EnumProperty(items=named, **common)
    if meta.get("path"):
        common["options"] |= PATH_OPTIONS
        return bpy.props.StringProperty(subtype="FILE_PATH", **common)
    if "min" in meta:
        common |= {"min": meta["min"], "max": meta["max"]}
    common |= _SUBTYPES.get(meta.get("unit", ""), {})
    if meta.get("unit") == "degrees":
        common |= {name: math.radians(common[name]) for name in ("default", "min", "max")}
    kinds: dict[type, Any] = {
        bool: bpy.props.BoolProperty,
        int: bpy.props.IntProperty,
        float: bpy.props.FloatProperty,
        str: bpy.props.StringProperty,
    }
    return kinds[type(item.default)](**common)


def _label(item: Field[Any]) -> str:
    return item.metadata.get("label") or item.name.replace("_", " ").title()


def _checkbox(item: Field[Any]) -> Any:
    """The checkbox of a setting that is off at 0."""

    def is_on(properties: Any) -> bool:
        return bool(getattr(properties, item.name))

    def switch(properties: Any, on: bool) -> None:
        if on != is_on(properties):
            set_setting(item, properties, item.metadata["on"] if on else 0)

    return bpy.props.BoolProperty(
        name=_label(item),
        description=item.metadata["help"],
        options={"SKIP_SAVE"},
        get=is_on,
        set=switch,
    )


def output_property(written: str, options: Iterable[Any] = ()) -> Any:
    """The output folder of a capture or a dataset.

    written : what is written there, for people.
    """
    return bpy.props.StringProperty(
        name="Folder",
        description=f"Where {written}; empty for the folder in the preferences",
        subtype="DIR_PATH",
        options=PATH_OPTIONS | set(options),
    )


def source_property() -> Any:
    """What a dataset is made of."""
    return bpy.props.EnumProperty(
        name="Source",
        description="What to capture",
        items=(
            ("selection", "Selected", "Each of the selected objects"),
            ("collection", "Collection", "Each object of a collection"),
            ("files", "Files", "Every mesh file in a folder, or the files listed in a manifest"),
        ),
    )


def mesh_files_property() -> Any:
    """The mesh files that a dataset is made of."""
    return bpy.props.StringProperty(
        name="Files",
        description="A folder of mesh files, or a manifest (.csv, .jsonl) with a column named path",
        subtype="FILE_PATH",
        options=PATH_OPTIONS,
    )


COLLECTION = "The collection whose objects are captured"


def variations_property(options: Iterable[Any] = ()) -> Any:
    """How many meshes are made of each image."""
    return bpy.props.IntProperty(
        name="Meshes",
        description="Number of meshes per image, each with the next seed",
        default=1,
        min=1,
        max=64,
        options=set(options),
    )


def keep_camera_property() -> Any:
    """Whether a camera is added beside a generated mesh."""
    return bpy.props.BoolProperty(
        name="Keep View", description="Add a camera that sees the mesh from the image's viewpoint"
    )


def keep_layers_property() -> Any:
    """Whether the layers of a generated mesh are added too."""
    return bpy.props.BoolProperty(
        name="Keep Layers",
        description="Add the predicted layers as a hidden collection, and keep the generator's "
        "pictures",
    )


@with_settings(CaptureSettings)
class XRAY_PG_capture(bpy.types.PropertyGroup):
    """The settings in the Capture panel."""

    directory: output_property("xrays/ and images/ are written")


@with_settings(DatasetSettings)
class XRAY_PG_dataset(bpy.types.PropertyGroup):
    """The settings in the Dataset panel."""

    source: source_property()
    path: mesh_files_property()
    directory: output_property("the dataset is written")
    collection: bpy.props.PointerProperty(
        name="Collection", description=COLLECTION, type=bpy.types.Collection
    )


def category_search(system_of: Callable[[Any], System]) -> Callable[..., list[str]]:
    """The search of a property for a category of `system_of(owner)`; see StringProperty."""

    def search(owner: Any, _context: Any, text: str) -> list[str]:
        known = system_of(owner).categories
        return [name for name in known if text.lower() in name.lower()]

    return search


def category_property(system: System) -> Any:
    """A searchable property with the system's categories."""
    return bpy.props.StringProperty(
        name="Category",
        description=f"What {system.label} generates: one of {len(system.categories)} categories",
        search=category_search(lambda _: system),
        search_options={"SORT"},
    )


def _system_group(system: System) -> type[Any]:
    """The properties a scene stores for one system: its settings, weights and category."""
    properties = setting_properties(system.settings.own_fields())
    # Each system has its own checkpoint, so that it never gets another system's weights.
    properties["checkpoint"] = setting_property(GenerateSettings.__dataclass_fields__["checkpoint"])
    if system.categories:
        properties["category"] = category_property(system)
    return type(
        f"XRAY_PG_system_{system.key}",
        (bpy.types.PropertyGroup,),
        {"__doc__": f"The settings of {system.label}.", "__annotations__": properties},
    )


SYSTEM_GROUPS = {name: _system_group(system) for name, system in SYSTEMS.items()}


class XRAY_PG_systems(bpy.types.PropertyGroup):
    """The settings of each system."""


XRAY_PG_systems.__annotations__ = {
    SYSTEMS[name].key: _pointer_property(type=group) for name, group in SYSTEM_GROUPS.items()
}

# The settings that all systems share, except those that depend on the machine (preferences) and
# the weights (each system has its own).
SHARED = [
    item
    for item in fields(GenerateSettings)
    if item.name not in ("generator", "device", "checkpoint")
]


@with_settings(ResultSettings)
class XRAY_PG_generate(bpy.types.PropertyGroup):
    """The settings in the Generate panel."""

    image: bpy.props.PointerProperty(
        name="Image", description="The picture to make a mesh from", type=bpy.types.Image
    )
    mask: bpy.props.PointerProperty(
        name="Mask", description="White where the image is redrawn", type=bpy.types.Image
    )
    systems: bpy.props.PointerProperty(type=XRAY_PG_systems)
    variations: variations_property()
    keep_camera: keep_camera_property()
    keep_layers: keep_layers_property()


XRAY_PG_generate.__annotations__ |= setting_properties(SHARED)


def chosen_system() -> System:
    """The system chosen in the preferences."""
    machine = preferences()
    return SYSTEMS[machine.generator if machine else DEFAULT_GENERATOR]


def system_settings(scene: Any, system: System) -> Any:
    """The properties of `system` in the panel settings `scene`: settings, weights, category."""
    return getattr(scene.systems, system.key)


@with_settings(OmageSettings)
class XRAY_PG_omage(bpy.types.PropertyGroup):
    """What the Omage panel shows."""

    stitch: bpy.props.BoolProperty(
        name="Stitch", description="Close the seams between the patches of the mesh"
    )


@with_settings(SliceSettings)
class XRAY_PG_slices(bpy.types.PropertyGroup):
    """What the Slices panel shows."""


class XRAY_PG_scene(bpy.types.PropertyGroup):
    """All of X-Ray's settings in a scene."""

    capture: bpy.props.PointerProperty(type=XRAY_PG_capture)
    dataset: bpy.props.PointerProperty(type=XRAY_PG_dataset)
    generate: bpy.props.PointerProperty(type=XRAY_PG_generate)
    omage: bpy.props.PointerProperty(type=XRAY_PG_omage)
    slices: bpy.props.PointerProperty(type=XRAY_PG_slices)


CLASSES: tuple[type[Any], ...] = (
    XRAY_PG_capture,
    XRAY_PG_dataset,
    *SYSTEM_GROUPS.values(),
    XRAY_PG_systems,
    XRAY_PG_generate,
    XRAY_PG_omage,
    XRAY_PG_slices,
    XRAY_PG_scene,
)


def register() -> None:
    """Register the groups and `Scene.xray`."""
    register_classes(CLASSES)
    scene: Any = bpy.types.Scene
    scene.xray = _pointer_property(type=XRAY_PG_scene)


def unregister() -> None:
    """Undo `register`."""
    scene: Any = bpy.types.Scene
    del scene.xray
    unregister_classes(CLASSES)


def preferences() -> Any:
    """The extension's preferences; None if the extension is not enabled."""
    addon = bpy.context.preferences.addons.get(extension_package())
    return addon.preferences if addon else None


def absolute_path(path: str) -> Path:
    """`path` with Blender's `//` (the .blend file's folder) resolved."""
    return Path(bpy.path.abspath(path))


def output_path(path: str) -> Path:
    """As `absolute_path`, to write to. Raises XRayError `no_folder` if Blender does not know yet
    where the .blend file is."""
    if path.startswith("//") and not bpy.data.filepath:
        raise XRayError(
            "no_folder",
            f"{path} is relative to the .blend file, which is not saved yet.",
            "Save the file or choose another folder.",
        )
    return absolute_path(path)
