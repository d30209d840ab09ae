"""The scene that was active when the user started work which runs later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import bpy

from ...xray_addon.errors import XRayError
from ..tasks.lasting import Lasting


class ChosenScene:
    """The scene and view layer of `context`, which undo and renaming the scene do not change."""

    def __init__(self, context: bpy.types.Context) -> None:
        self._scene = Lasting(context.scene)
        self._layer = context.view_layer.name

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make them those of `bpy.context` during the body; the window shows what it showed.

        Raises XRayError `scene_gone`.
        """
        scene = self._scene.find()
        if scene is None:
            raise _gone(f"scene {self._scene.name!r}")
        layer = scene.view_layers.get(self._layer)
        if layer is None:
            raise _gone(f"view layer {self._layer!r} of the scene {scene.name!r}")
        with bpy.context.temp_override(scene=scene, view_layer=layer):
            yield


def _gone(what: str) -> XRayError:
    return XRayError(
        "scene_gone",
        f"The {what} was removed before all its objects were captured.",
        "Choose another scene and start again.",
    )
