"""The scene that was active when the user started work which runs later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import bpy

from ...xray_addon.errors import XRayError


class ChosenScene:
    """The scene and view layer of `context`, which undo and renaming the scene do not change."""

    def __init__(self, context: bpy.types.Context) -> None:
        scene: Any = context.scene
        self._scene, self._name = scene.session_uid, scene.name
        self._layer = context.view_layer.name

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make them those of `bpy.context` during the body; the window shows what it showed.

        Raises XRayError `scene_gone`.
        """
        scenes: Any = bpy.data.scenes
        found = [scene for scene in scenes if scene.session_uid == self._scene]
        if not found:
            raise _gone(f"scene {self._name!r}")
        layer = found[0].view_layers.get(self._layer)
        if layer is None:
            raise _gone(f"view layer {self._layer!r} of the scene {found[0].name!r}")
        with bpy.context.temp_override(scene=found[0], view_layer=layer):
            yield


def _gone(what: str) -> XRayError:
    return XRayError(
        "scene_gone",
        f"The {what} was removed before all its objects were captured.",
        "Choose another scene and start again.",
    )
