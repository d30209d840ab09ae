"""The objects of the open file that a command works on: ``blender -b scene.blend -c xray ...``.

Blender opens the file before it runs the command. The command finds the active scene and the view
layer as they were saved, and does not save them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bpy

from ..xray_addon.errors import XRayError
from .dataset.ops_capture import solids

_OPTIONS = ("--collection", "--selected", "--objects")


def are_named(argv: Sequence[str]) -> bool:
    """Whether `argv` has an option of `add_objects`, which argparse allows to be abbreviated."""
    words = [word.partition("=")[0] for word in argv if len(word) > len("--o")]
    return any(option.startswith(word) for word in words for option in _OPTIONS)


def add_objects(parser: argparse.ArgumentParser, what: str, instead: str) -> None:
    """Add the options that name objects of the open file.

    what, instead : for the help: what is used of them, and which argument they replace.
    """
    group = parser.add_argument_group(
        "the open file", f"{what} of FILE in place of {instead}: blender -b FILE -c xray ..."
    )
    ways = group.add_mutually_exclusive_group()
    ways.add_argument(
        "--collection", metavar="NAME", help="all in this collection and in those below it"
    )
    ways.add_argument("--selected", action="store_true", help="the selected ones")
    ways.add_argument("--objects", metavar="NAME", nargs="+", help="the ones with these names")


def solid_objects(arguments: argparse.Namespace) -> list[bpy.types.Object]:
    """The objects with faces that are named by the options of `add_objects`.

    Other objects in a collection or selection are left out. Raises XRayError `no_source` for an
    unknown name, for a named object without faces, and if nothing is left.
    """
    return _fitting(
        arguments, lambda obj: bool(solids([obj])), "have no faces", "Name objects with faces."
    )


def reference_images(arguments: argparse.Namespace) -> list[bpy.types.Image]:
    """The images, without duplicates, of the named image objects (Add > Image).

    Other objects in a collection or selection are left out. Raises XRayError `no_source` as
    `solid_objects` does.
    """
    objects = _fitting(
        arguments,
        lambda obj: obj.type == "EMPTY" and obj.data is not None,
        "show no image",
        "Name image objects (Add > Image), or give an image file.",
    )
    return list({obj.data.name_full: obj.data for obj in objects}.values())


def image_of(path: Path | None) -> Path | bpy.types.Image | None:
    """`path`, absolute; if there is no such file, the open file's image of that name."""
    if path is None or path.exists():
        return path and path.absolute()
    return bpy.data.images.get(str(path)) or path.absolute()


def leave_edit_mode() -> None:
    """Switch to Object Mode; a file opens in the mode in which it was saved."""
    if bpy.context.mode != "OBJECT":
        bpy.ops.object.mode_set(mode="OBJECT")


def _fitting(
    arguments: argparse.Namespace, fits: Callable[[Any], bool], lack: str, remedy: str
) -> list[Any]:
    objects = _objects(arguments)
    misfits = [obj.name for obj in objects if not fits(obj)]
    if misfits and (arguments.objects or len(misfits) == len(objects)):
        raise XRayError("no_source", f"These {lack}: {', '.join(misfits)}.", remedy)
    return [obj for obj in objects if fits(obj)]


def _objects(arguments: argparse.Namespace) -> list[Any]:
    """The named objects of the view layer. Raises XRayError `no_source` if there are none."""
    leave_edit_mode()
    layer: Any = bpy.context.view_layer
    layer.update()  # a script may have linked objects just before
    place = f"the view layer {layer.name!r} of the scene {bpy.context.scene.name!r}"
    if arguments.objects:
        found = [_named(bpy.data.objects, name, "object") for name in arguments.objects]
        elsewhere = [obj.name for obj in found if obj.name not in layer.objects]
        if elsewhere:
            raise XRayError(
                "no_source",
                f"These are not in {place}: {', '.join(elsewhere)}.",
                "Choose their scene (blender -b FILE -S SCENE -c xray ...).",
            )
        return list(dict.fromkeys(found))
    if arguments.selected:
        found = [obj for obj in layer.objects.selected if obj.visible_get()]
        lack = f"Nothing is selected in {place}."
    else:
        collection = _named(bpy.data.collections, arguments.collection, "collection")
        found = [obj for obj in collection.all_objects if obj.name in layer.objects]
        lack = f"The collection {arguments.collection!r} has no objects in {place}."
    if not found:
        raise XRayError(
            "no_source", lack, "Open a file that has some: blender -b scene.blend -c xray ..."
        )
    return found


def _named(data: Any, name: str, kind: str) -> Any:
    found = data.get(name)
    if found is None:
        names = [repr(known.name) for known in data]
        few = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        file = Path(bpy.data.filepath).name or "The open file"
        raise XRayError(
            "no_source",
            f"{file} has no {kind} {name!r}.",
            f"It has {few or 'none'}.",
        )
    return found
