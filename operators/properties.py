"""Blender properties made from the settings dataclasses, and the ones a scene keeps."""

from __future__ import annotations

from dataclasses import fields
from inspect import get_annotations
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import bpy

from ..xray_addon.settings import GENERATORS, CaptureSettings, GenerateSettings, Settings
from .registration import extension_package, register_classes, unregister_classes

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


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
    return cls(**{item.name: getattr(source, item.name) for item in fields(cls)})  # type: ignore[arg-type]


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
            "cpu": "CPU",
            "cuda": "CUDA",
            "mps": "Apple MPS",
            "rembg": "rembg",
            "xray": "X-Ray",
        }
        items = [(choice, labels.get(choice, choice.title()), "") for choice in choices]
        return bpy.props.EnumProperty(items=items, **common)
    if isinstance(item.default, bool):
        return bpy.props.BoolProperty(**common)
    if isinstance(item.default, int):
        return bpy.props.IntProperty(min=meta["min"], max=meta["max"], **common)
    if isinstance(item.default, float):
        return bpy.props.FloatProperty(min=meta["min"], max=meta["max"], **common)
    if item.name == "checkpoint":
        return bpy.props.StringProperty(subtype="FILE_PATH", **common)
    return bpy.props.StringProperty(**common)


@with_settings(CaptureSettings)
class XRAY_PG_capture(bpy.types.PropertyGroup):
    """What the Capture panel shows."""

    directory: bpy.props.StringProperty(
        name="Folder",
        description="Where xrays/ and images/ are written; empty for the one in the preferences",
        subtype="DIR_PATH",
    )


@with_settings(GenerateSettings)
class XRAY_PG_generate(bpy.types.PropertyGroup):
    """What the Generate panel shows."""

    image: bpy.props.PointerProperty(
        name="Image", description="The picture to make a mesh from", type=bpy.types.Image
    )
    keep_camera: bpy.props.BoolProperty(
        name="Keep View", description="Add a camera that sees the mesh as the image shows it"
    )
    keep_layers: bpy.props.BoolProperty(
        name="Keep Layers", description="Add the predicted layers as hidden point objects"
    )


class XRAY_PG_scene(bpy.types.PropertyGroup):
    """All of X-Ray's settings in a scene."""

    capture: bpy.props.PointerProperty(type=XRAY_PG_capture)
    generate: bpy.props.PointerProperty(type=XRAY_PG_generate)


CLASSES: tuple[type[Any], ...] = (XRAY_PG_capture, XRAY_PG_generate, XRAY_PG_scene)


def register() -> None:
    """Register the groups and `Scene.xray`."""
    register_classes(CLASSES)
    scene: Any = bpy.types.Scene
    pointer: Any = bpy.props.PointerProperty
    scene.xray = pointer(type=XRAY_PG_scene)


def unregister() -> None:
    """The inverse of `register`."""
    scene: Any = bpy.types.Scene
    del scene.xray
    unregister_classes(CLASSES)


def preferences() -> Any:
    """The extension's preferences; None while it is not enabled."""
    addon = bpy.context.preferences.addons.get(extension_package())
    return addon.preferences if addon else None


def absolute_path(path: str) -> Path:
    """`path` with Blender's `//` (beside the .blend file) resolved."""
    return Path(bpy.path.abspath(path))
