"""Registers and unregisters Blender classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bpy

if TYPE_CHECKING:
    from collections.abc import Sequence


def register_classes(classes: Sequence[type[Any]]) -> None:
    """Register in order."""
    for cls in classes:
        bpy.utils.register_class(cls)


def unregister_classes(classes: Sequence[type[Any]]) -> None:
    """Unregister in reverse order."""
    for cls in reversed(classes):
        bpy.utils.unregister_class(cls)


def extension_package() -> str:
    """The extension's package as Blender names it (`bl_ext.<repository>.xray`)."""
    return __package__.partition(".operators")[0]
