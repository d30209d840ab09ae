"""Decides which objects are visible: to a render's camera, or in the viewport."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import bpy

from ...xray_addon.errors import XRayError

# Display types of objects that the viewport draws without surfaces.
_OUTLINES = frozenset({"WIRE", "BOUNDS"})


@contextmanager
def shown_in(visible_in: str, depsgraph: bpy.types.Depsgraph) -> Iterator[None]:
    """Within the `with`, the viewport's `depsgraph` contains what `visible_in` shows.

    visible_in : "render" or "viewport". Blender has a graph for renders only while it renders, so
    for "render" the viewport's visibility is temporarily set to the render's.
    """
    if visible_in == "viewport":
        yield
        return
    layer: Any = depsgraph.view_layer
    selected, active = list(layer.objects.selected), layer.objects.active
    restore = _show_as_rendered(layer)
    if restore:
        layer.update()
    try:
        yield
    finally:
        for step in restore:
            step()
        if restore:
            layer.update()
            for obj in selected:  # hidden objects lose their selection
                obj.select_set(True, view_layer=layer)
            layer.objects.active = active


def _show_as_rendered(layer: Any) -> list[Callable[[], None]]:
    """Show in the viewport what a render shows; returns functions that restore the visibility."""
    restore: list[Callable[[], None]] = []

    def change(owner: Any, name: str, value: bool) -> None:
        before = getattr(owner, name)
        if before != value:
            restore.append(partial(setattr, owner, name, before))
            setattr(owner, name, value)

    for obj in layer.objects:
        if obj.hide_get(view_layer=layer):
            restore.append(partial(obj.hide_set, True, view_layer=layer))
            obj.hide_set(False, view_layer=layer)
    objects: Any = bpy.data.objects
    for obj in objects:
        change(obj, "hide_viewport", obj.hide_render)
        change(obj, "show_instancer_for_viewport", obj.show_instancer_for_render)
    for collection in bpy.data.collections:
        change(collection, "hide_viewport", collection.hide_render)
    for part in _parts(layer.layer_collection):
        change(part, "hide_viewport", False)
    return restore


def _parts(collection: Any) -> Iterator[Any]:
    """A view layer's collection and all its descendants."""
    yield collection
    for child in collection.children:
        yield from _parts(child)


class Visibility:
    """Decides which instances of a depsgraph are visible; to be used inside `shown_in`."""

    def __init__(self, visible_in: str, depsgraph: bpy.types.Depsgraph) -> None:
        self._rendered = visible_in == "render"
        self._layer: Any = depsgraph.view_layer
        self._cutters = _cutters() if self._rendered else frozenset()

    def counts(self, instance: Any) -> bool:
        """Whether the surface of an instance is visible."""
        owner = (instance.parent if instance.is_instance else instance.object).original
        if not self._rendered and not owner.visible_get(view_layer=self._layer):
            return False  # hidden with its collection; the graph may not be updated yet
        return not self.reason(owner) and not self.reason(instance.object.original)

    def reason(self, obj: Any) -> str:
        """Why the surface of `obj` is not visible, for people; "" if it is."""
        outlined = obj.display_type in _OUTLINES
        if not self._rendered:
            return f"is displayed as {obj.display_type.lower()}" if outlined else ""
        if obj.hide_render:
            return "is disabled in renders"
        if outlined and obj.name_full in self._cutters:
            return f"is a boolean cutter displayed as {obj.display_type.lower()}"
        if not obj.visible_camera or obj.indirect_only_get(view_layer=self._layer):
            return "is invisible to the camera"
        if obj.is_shadow_catcher:
            return "is a shadow catcher"
        if obj.holdout_get(view_layer=self._layer):
            return "is a holdout"
        return ""

    def hidden(self, obj: Any) -> str:
        """Like `reason`, but for an object that may be hidden by its collection."""
        if not self._rendered:
            shown = obj.visible_get(view_layer=self._layer)
        else:
            parts = _parts(self._layer.layer_collection)
            enabled = [part.collection for part in parts if not part.exclude]
            shown = any(obj.name in part.objects for part in enabled if not part.hide_render)
        return self.reason(obj) or ("" if shown else "is in a collection that is switched off")


def _cutters() -> frozenset[str]:
    """Names of the objects that Boolean modifiers use."""
    found: set[str] = set()
    objects: Any = bpy.data.objects
    for obj in objects:
        for modifier in obj.modifiers:
            if modifier.type == "BOOLEAN" and modifier.operand_type == "OBJECT":
                found.update({modifier.object.name_full} if modifier.object else ())
            elif modifier.type == "BOOLEAN" and modifier.collection:
                found.update(cutter.name_full for cutter in modifier.collection.all_objects)
    return frozenset(found)


def no_faces(
    objects: Iterable[bpy.types.Object], depsgraph: bpy.types.Depsgraph, visible_in: str
) -> XRayError:
    """The error if none of `objects` has visible faces, with a remedy."""
    wanted: list[Any] = sorted(objects, key=lambda obj: obj.name_full)
    names = ", ".join(obj.name_full for obj in wanted[:3]) + (", ..." if len(wanted) > 3 else "")
    message, remedy = f"There are no faces to capture in {names or 'the file'}", ""
    seen = Visibility(visible_in, depsgraph)
    reasons = [f"{obj.name_full} {why}" for obj in wanted if (why := seen.hidden(obj))]
    scenes = _other_scenes(depsgraph)
    if reasons:
        other = "viewport" if visible_in == "render" else "render"
        message += f": {'; '.join(reasons[:3])}" + ("; ..." if len(reasons) > 3 else "")
        remedy = f"Show it, or take what the {other} shows (Visible In, --visible-in {other})."
    elif scenes:
        message += f": another scene of this file has meshes ({', '.join(scenes)})"
        remedy = "Make that scene the active one and save the file."
    return XRayError("no_faces", f"{message}.", remedy or "Choose a visible object with faces.")


def _other_scenes(depsgraph: bpy.types.Depsgraph) -> list[str]:
    """The names of the other scenes that have meshes."""
    scenes: Any = bpy.data.scenes
    return [
        scene.name
        for scene in scenes
        if scene != depsgraph.scene
        and any(obj.type == "MESH" and len(obj.data.polygons) for obj in scene.objects)
    ]
