"""Mesh files in and out of Blender, for the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy

from ..xray_addon.errors import XRayError
from ..xray_addon.files import replacing
from .convert.surfaces import SOLID_TYPES

# Operators by suffix; the first that this Blender has is taken.
IMPORTERS = {
    ".glb": ("import_scene.gltf",),
    ".gltf": ("import_scene.gltf",),
    ".obj": ("wm.obj_import",),
    ".ply": ("wm.ply_import",),
    ".stl": ("wm.stl_import",),
    ".fbx": ("wm.fbx_import", "import_scene.fbx"),
    ".blend": ("wm.open_mainfile",),
}
OUTPUTS = (".glb", ".blend")


def mesh_files(source: str | Path) -> list[Path]:
    """The mesh files that `source` stands for: itself, or those in the folder, sorted.

    Raises XRayError `missing_file`, `unknown_format`, `no_meshes`.
    """
    source = Path(source)
    if source.is_dir():
        found = sorted(p for p in source.rglob("*") if p.suffix.lower() in IMPORTERS)
        if not found:
            raise XRayError("no_meshes", f"{source} holds no mesh files.", f"Known are {_known()}.")
        return found
    if not source.exists():
        raise XRayError("missing_file", f"There is no file {source}.", "Check the path.")
    if source.suffix.lower() not in IMPORTERS:
        raise XRayError(
            "unknown_format", f"{source.name} is no known mesh file.", f"Known are {_known()}."
        )
    return [source]


def open_alone(path: Path) -> list[bpy.types.Object]:
    """Make the objects of the file at `path` the only ones; returns those with faces.

    What this Blender held before is gone. Raises XRayError `unreadable_file`, `no_importer`.
    """
    names = IMPORTERS[path.suffix.lower()]
    try:
        if path.suffix.lower() != ".blend":
            empty_file()
        importer = next((op for name in names if (op := _operator(name))), None)
        if importer is None:
            raise XRayError(
                "no_importer",
                f"This Blender cannot import {path.suffix} files.",
                "Enable the importer in Preferences > Add-ons.",
            )
        importer(filepath=str(path))
    except RuntimeError as error:
        raise XRayError(
            "unreadable_file", f"{path} cannot be imported ({error}).", "Check the file."
        ) from error
    return [obj for obj in bpy.context.view_layer.objects if obj.type in SOLID_TYPES]


def empty_file() -> None:
    """Leave nothing in this Blender's file."""
    bpy.ops.wm.read_homefile(use_empty=True)


def save_objects(objects: list[bpy.types.Object], path: str | Path) -> None:
    """Write `objects` as .glb, or the whole file as .blend; whole or not at all.

    Raises XRayError `unknown_format`, `cannot_write`.
    """
    path = Path(path)
    check_output(path)
    try:
        with replacing(path) as temporary:
            if path.suffix.lower() == ".blend":
                temporary.unlink()  # else Blender keeps the empty file as a backup, .blend1
                bpy.ops.wm.save_as_mainfile(filepath=str(temporary), copy=True, compress=True)
            else:
                bpy.context.view_layer.update()  # else it may lack what was just linked
                for obj in bpy.context.view_layer.objects:
                    obj.select_set(obj in objects)
                bpy.ops.export_scene.gltf(
                    filepath=str(temporary),
                    export_format="GLB",
                    use_selection=True,
                    use_mesh_vertices=True,  # points
                )
    except (OSError, RuntimeError) as error:
        raise XRayError(
            "cannot_write", f"{path} cannot be written ({error}).", "Choose another file."
        ) from error


def check_output(path: Path) -> None:
    """Raises XRayError `unknown_format` where `save_objects` could not write `path`."""
    if path.suffix.lower() not in OUTPUTS:
        raise XRayError(
            "unknown_format",
            f"{path.name} cannot be written.",
            f"Use a name that ends in {' or '.join(OUTPUTS)}.",
        )


def _operator(name: str) -> Any:
    """The operator called `name`; None where it is not registered."""
    module, _, function = name.partition(".")
    operators = getattr(bpy.ops, module)
    return getattr(operators, function) if function in dir(operators) else None


def _known() -> str:
    return ", ".join(sorted(IMPORTERS))
