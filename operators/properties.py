"""Blender properties made from the settings dataclasses, and the ones a scene keeps."""

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
from ..xray_addon.settings.generate import GENERATORS, GenerateSettings, ResultSettings
from .interface.registration import extension_package, register_classes, unregister_classes
from .layers.layers import show_layers

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

# Settings that name a file. Blender's file browser begins them with // beside the .blend file.
_FILES = ("checkpoint", "poses", "hdri")

# Options of a property for a path that may begin with //. Before Blender 4.5 each one's may.
PATH_OPTIONS: set[Any] = {"PATH_SUPPORTS_BLEND_RELATIVE"} if bpy.app.version >= (4, 5, 0) else set()

# Where a dataset's objects come from.
SOURCES = (
    ("selection", "Selected", "Each of the selected objects"),
    ("collection", "Collection", "Each object of a collection"),
    ("files", "Files", "Every mesh file in a folder, or those that a manifest lists"),
)


def setting_properties(cls: type[Settings]) -> dict[str, Any]:
    """A Blender property for each field of a settings dataclass, by name."""
    return {item.name: _property(item) for item in fields(cls)}  # type: ignore[arg-type]


def with_settings(cls: type[Settings]) -> Callable[[type[_T]], type[_T]]:
    """Class decorator: give a Blender class the properties of a settings dataclass."""

    def decorate(target: type[_T]) -> type[_T]:
        target.__annotations__ = {**setting_properties(cls), **get_annotations(target)}
        return target

    return decorate


def read_settings(cls: type[_T], source: Any) -> _T:
    """The settings dataclass with the values of `source`'s properties."""
    return cls(**{item.name: _value(item, source) for item in fields(cls)})  # type: ignore[arg-type]


def _value(item: Any, source: Any) -> Any:
    """A property's value. Blender's floats have single precision: as they were meant, not kept."""
    value = getattr(source, item.name)
    if item.name in _FILES:
        return bpy.path.abspath(value)
    if not isinstance(item.default, float):
        return value
    return item.default if value == np.float32(item.default) else float(f"{value:.7g}")


def copy_settings(cls: type[Settings], source: Any, target: Any) -> None:
    """Set the properties of `target` to those of `source`."""
    for item in fields(cls):  # type: ignore[arg-type]
        setattr(target, item.name, getattr(source, item.name))


def _property(item: Any) -> Any:
    meta: dict[str, Any] = dict(item.metadata)
    name = item.name.replace("_", " ").title()
    common = {"name": name, "description": meta["help"], "default": item.default}
    choices = GENERATORS if item.name == "generator" else meta.get("choices")
    if choices:
        labels = {
            "built-in": "Built-in Network",
            "cast": "Built-in",
            "cpu": "CPU",
            "cuda": "CUDA",
            "eevee": "EEVEE",
            "gpu": "GPU",
            "hdri": "HDRI",
            "mps": "Apple MPS",
            "rembg": "rembg",
            "xray": "X-Ray",
            "triposr": "TripoSR",
            "xray-paper": "X-Ray (paper scale)",
        }
        items = [(choice, labels.get(choice, choice.title()), "") for choice in choices]
        return bpy.props.EnumProperty(items=items, **common)
    if isinstance(item.default, bool):
        return bpy.props.BoolProperty(**common)
    if isinstance(item.default, int):
        return bpy.props.IntProperty(min=meta["min"], max=meta["max"], **common)
    if isinstance(item.default, float):
        return bpy.props.FloatProperty(min=meta["min"], max=meta["max"], **common)
    if item.name in _FILES:
        return bpy.props.StringProperty(subtype="FILE_PATH", options=PATH_OPTIONS, **common)
    return bpy.props.StringProperty(**common)


@with_settings(CaptureSettings)
class XRAY_PG_capture(bpy.types.PropertyGroup):
    """What the Capture panel shows."""

    directory: bpy.props.StringProperty(
        name="Folder",
        description="Where xrays/ and images/ are written; empty for the one in the preferences",
        subtype="DIR_PATH",
        options=PATH_OPTIONS,
    )


@with_settings(DatasetSettings)
class XRAY_PG_dataset(bpy.types.PropertyGroup):
    """What the Dataset panel shows."""

    source: bpy.props.EnumProperty(name="Source", description="What is captured", items=SOURCES)
    path: bpy.props.StringProperty(
        name="Files",
        description="A folder of mesh files, or a manifest (.csv, .jsonl) with the column path",
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


_CHECKPOINT: dict[str, Any] = {
    "name": "Checkpoint",
    "description": GenerateSettings.__dataclass_fields__["checkpoint"].metadata["help"],
    "subtype": "FILE_PATH",
    "options": PATH_OPTIONS,
}


# Typed as if it gave nothing, as it stands for a type elsewhere.
_string_property: Any = bpy.props.StringProperty


class XRAY_PG_checkpoints(bpy.types.PropertyGroup):
    """The weights that are chosen for each generator."""


XRAY_PG_checkpoints.__annotations__ = {
    name.replace("-", "_"): _string_property(**_CHECKPOINT) for name in GENERATORS
}


def _generator() -> str:
    machine = preferences()
    return (machine.generator if machine else GENERATORS[0]).replace("-", "_")


def _get_checkpoint(scene: Any) -> str:
    return str(getattr(scene.checkpoints, _generator()))


def _set_checkpoint(scene: Any, value: str) -> None:
    setattr(scene.checkpoints, _generator(), value)


@with_settings(ResultSettings)
@with_settings(GenerateSettings)
class XRAY_PG_generate(bpy.types.PropertyGroup):
    """What the Generate panel shows."""

    image: bpy.props.PointerProperty(
        name="Image", description="The picture to make a mesh from", type=bpy.types.Image
    )
    checkpoints: bpy.props.PointerProperty(type=XRAY_PG_checkpoints)
    # Of the chosen generator: another one's weights are never handed to it.
    checkpoint: bpy.props.StringProperty(get=_get_checkpoint, set=_set_checkpoint, **_CHECKPOINT)
    variations: bpy.props.IntProperty(
        name="Variations",
        description="Meshes of each image, with seeds from the seed on",
        default=1,
        min=1,
        max=64,
    )
    keep_camera: bpy.props.BoolProperty(
        name="Keep View", description="Add a camera that sees the mesh as the image shows it"
    )
    keep_layers: bpy.props.BoolProperty(
        name="Keep Layers", description="Add the predicted layers as hidden objects"
    )


class XRAY_PG_layers(bpy.types.PropertyGroup):
    """How a collection of layers is shown."""

    def _show(self, _context: bpy.types.Context) -> None:
        show_layers(self.id_data, self.peel, self.explode)

    peel: bpy.props.IntProperty(
        name="Peel",
        description="Layers that are hidden, nearest first",
        min=0,
        soft_max=16,
        update=_show,
    )
    explode: bpy.props.FloatProperty(
        name="Explode",
        description="Distance between two layers, in sizes of the object",
        soft_min=0.0,
        soft_max=2.0,
        update=_show,
    )


class XRAY_PG_scene(bpy.types.PropertyGroup):
    """All of X-Ray's settings in a scene."""

    capture: bpy.props.PointerProperty(type=XRAY_PG_capture)
    dataset: bpy.props.PointerProperty(type=XRAY_PG_dataset)
    generate: bpy.props.PointerProperty(type=XRAY_PG_generate)


CLASSES: tuple[type[Any], ...] = (
    XRAY_PG_capture,
    XRAY_PG_dataset,
    XRAY_PG_checkpoints,
    XRAY_PG_generate,
    XRAY_PG_layers,
    XRAY_PG_scene,
)


def register() -> None:
    """Register the groups, `Scene.xray` and `Collection.xray`."""
    register_classes(CLASSES)
    scene: Any = bpy.types.Scene
    collection: Any = bpy.types.Collection
    pointer: Any = bpy.props.PointerProperty
    scene.xray = pointer(type=XRAY_PG_scene)
    collection.xray = pointer(type=XRAY_PG_layers)


def unregister() -> None:
    """The inverse of `register`."""
    scene: Any = bpy.types.Scene
    collection: Any = bpy.types.Collection
    del scene.xray, collection.xray
    unregister_classes(CLASSES)


def preferences() -> Any:
    """The extension's preferences; None while it is not enabled."""
    addon = bpy.context.preferences.addons.get(extension_package())
    return addon.preferences if addon else None


def absolute_path(path: str) -> Path:
    """`path` with Blender's `//` (beside the .blend file) resolved."""
    return Path(bpy.path.abspath(path))
