"""Blender properties made from the settings dataclasses, and the properties stored in a scene."""

from __future__ import annotations

from dataclasses import fields
from inspect import get_annotations
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import bpy
import numpy as np

from ..xray_addon.settings.base import Settings
from ..xray_addon.settings.capture import CaptureSettings
from ..xray_addon.settings.dataset import DatasetSettings
from ..xray_addon.settings.generate import DEFAULT_GENERATOR, GenerateSettings
from ..xray_addon.settings.omage import OmageSettings
from ..xray_addon.settings.result import ResultSettings
from ..xray_addon.settings.slices import SliceSettings
from ..xray_addon.systems import SYSTEMS
from ..xray_addon.systems.system import System
from .interface.registration import extension_package, register_classes, unregister_classes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from dataclasses import Field

_T = TypeVar("_T")

# Options of a path property that may begin with //. Before Blender 4.5 every path may.
PATH_OPTIONS: set[Any] = {"PATH_SUPPORTS_BLEND_RELATIVE"} if bpy.app.version >= (4, 5, 0) else set()

# Tooltips shared by the panel and the operator.
VARIATIONS = "Number of meshes per image, each with the next seed"
KEEP_CAMERA = "Add a camera that sees the mesh from the image's viewpoint"
KEEP_LAYERS = "Add the predicted layers as a hidden collection, and keep the system's pictures"

# Typed as if it returned nothing, because property calls are used as annotations.
_pointer_property: Any = bpy.props.PointerProperty

# The sources of a dataset's objects.
SOURCES = (
    ("selection", "Selected", "Each of the selected objects"),
    ("collection", "Collection", "Each object of a collection"),
    ("files", "Files", "Every mesh file in a folder, or the files listed in a manifest"),
)


def setting_properties(items: Iterable[Field[Any]]) -> dict[str, Any]:
    """A Blender property for each field of a settings dataclass, by name."""
    return {item.name: setting_property(item) for item in items}


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
    """A property's value. Undoes the rounding of Blender's single-precision floats."""
    value = getattr(source, item.name)
    if item.metadata.get("path"):
        return bpy.path.abspath(value)
    if not isinstance(item.default, float):
        return value
    return item.default if value == np.float32(item.default) else float(f"{value:.7g}")


def copy_settings(items: Iterable[Field[Any]], source: Any, target: Any) -> None:
    """Set the properties of `target` to those of `source`."""
    for item in items:
        setattr(target, item.name, getattr(source, item.name))


def setting_property(item: Field[Any], options: Iterable[str] = ()) -> Any:
    """A Blender property for a field."""
    meta: dict[str, Any] = dict(item.metadata)
    common: dict[str, Any] = {
        "name": meta.get("label") or item.name.replace("_", " ").title(),
        "description": meta["help"],
        "default": item.default,
        "options": set(options),
    }
    if item.name == "generator":
        systems = [(system.name, system.label, system.about) for system in SYSTEMS.values()]
        return bpy.props.EnumProperty(items=systems, **common)
    if choices := meta.get("choices"):
        labels: dict[str, str] = meta.get("labels", {})
        named = [(choice, labels.get(choice, choice.title()), "") for choice in choices]
        return bpy.props.EnumProperty(items=named, **common)
    if meta.get("path"):
        common["options"] |= PATH_OPTIONS
        return bpy.props.StringProperty(subtype="FILE_PATH", **common)
    if "min" in meta:
        common |= {"min": meta["min"], "max": meta["max"]}
    kinds: dict[type, Any] = {
        bool: bpy.props.BoolProperty,
        int: bpy.props.IntProperty,
        float: bpy.props.FloatProperty,
        str: bpy.props.StringProperty,
    }
    return kinds[type(item.default)](**common)


@with_settings(CaptureSettings)
class XRAY_PG_capture(bpy.types.PropertyGroup):
    """The settings in the Capture panel."""

    directory: bpy.props.StringProperty(
        name="Folder",
        description="Where xrays/ and images/ are written; empty for the preferences' folder",
        subtype="DIR_PATH",
        options=PATH_OPTIONS,
    )


@with_settings(DatasetSettings)
class XRAY_PG_dataset(bpy.types.PropertyGroup):
    """The settings in the Dataset panel."""

    source: bpy.props.EnumProperty(name="Source", description="What to capture", items=SOURCES)
    path: bpy.props.StringProperty(
        name="Files",
        description="A folder of mesh files, or a manifest (.csv, .jsonl) with a column named path",
        subtype="FILE_PATH",
        options=PATH_OPTIONS,
    )
    collection: bpy.props.PointerProperty(
        name="Collection",
        description="The collection whose objects are captured",
        type=bpy.types.Collection,
    )
    directory: bpy.props.StringProperty(
        name="Folder",
        description="Where the dataset is written; empty for the folder in the preferences",
        subtype="DIR_PATH",
        options=PATH_OPTIONS,
    )


def _search_category(system: System) -> Callable[..., list[str]]:
    def search(_group: Any, _context: Any, text: str) -> list[str]:
        return [name for name in system.categories if text.lower() in name.lower()]

    return search


def category_property(system: System) -> Any:
    """A searchable property with the system's categories."""
    return bpy.props.StringProperty(
        name="Category",
        description=f"What {system.label} generates: one of {len(system.categories)} categories",
        search=_search_category(system),
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
    variations: bpy.props.IntProperty(
        name="Meshes", description=VARIATIONS, default=1, min=1, max=64
    )
    keep_camera: bpy.props.BoolProperty(name="Keep View", description=KEEP_CAMERA)
    keep_layers: bpy.props.BoolProperty(name="Keep Layers", description=KEEP_LAYERS)


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
