"""Imports and exports mesh files, for the command line."""

from __future__ import annotations

import ctypes
import importlib
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import bpy

from ...xray_addon.dataset.companions import check_files, named_files
from ...xray_addon.errors import XRayError
from ...xray_addon.files.atomic import replacing, replacing_together
from ...xray_addon.files.mesh_formats import check_format
from ...xray_addon.files.png import write_png
from ...xray_addon.files.stl import write_stl
from ..interface.standard_output import quietly
from .gltf_files import unread_extension, write_bare
from .materials import texture_from_image
from .surfaces import SOLID_TYPES, surface_from_objects

# Import operators by suffix; the first one that this Blender has is used.
IMPORTERS = {
    ".glb": ("import_scene.gltf",),
    ".gltf": ("import_scene.gltf",),
    ".obj": ("wm.obj_import",),
    ".ply": ("wm.ply_import",),
    ".stl": ("wm.stl_import",),
    ".fbx": ("wm.fbx_import", "import_scene.fbx"),
    ".usd": ("wm.usd_import",),
    ".usda": ("wm.usd_import",),
    ".usdc": ("wm.usd_import",),
    ".usdz": ("wm.usd_import",),
    ".blend": ("wm.open_mainfile",),
}
OUTPUTS = (".glb", ".obj", ".stl", ".blend")
# glibc's mallopt: more free memory than this is returned, larger blocks (32 MB at most) always are.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def open_alone(path: str | Path, *, bare_geometry: bool = False) -> list[bpy.types.Object]:
    """Open the file at `path` alone in this Blender; returns the objects that may have faces.

    The current file is closed without saving. Scripts in the file do not run.
    bare_geometry : glTF files that require an extension which Blender lacks are read without it
        and without materials.
    Raises XRayError `missing_file`, `unknown_format`, `unreadable_file`, `no_importer`.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    names = IMPORTERS.get(suffix)
    if names is None:
        raise XRayError(
            "unknown_format",
            f"{path.name} is in a format that Blender does not import.",
            f"Supported formats: {', '.join(sorted(IMPORTERS))}.",
        )
    if not path.is_file():
        raise XRayError("missing_file", f"There is no file {path}.", "Check the path.")
    check_files(path)
    empty_file()
    importer = next((op for name in names if (op := _operator(name))), None)
    if importer is None:
        raise XRayError(
            "no_importer",
            f"This Blender cannot import {suffix} files.",
            "Enable the importer in Preferences > Add-ons.",
        )
    arguments: dict[str, Any] = {"filepath": str(path)}
    if suffix == ".blend":
        arguments |= {"load_ui": False, "use_scripts": False}
    try:
        importer(**arguments)
    except RuntimeError as error:
        unread = unread_extension(path, str(error)) if suffix in (".glb", ".gltf") else None
        if unread is None:
            raise _not_imported(path, error) from error
        if not bare_geometry:
            raise unread from error
        _import_bare(path, importer)
    return [obj for obj in bpy.context.view_layer.objects if obj.type in SOLID_TYPES]


def _import_bare(path: Path, importer: Any) -> None:
    """Import a glTF file without materials and required extensions."""
    empty_file()
    try:
        with tempfile.TemporaryDirectory(prefix="xray-") as folder:
            importer(filepath=str(write_bare(path, Path(folder))))
    except (RuntimeError, ValueError) as error:
        raise _not_imported(path, error) from error


def _not_imported(path: Path, error: Exception) -> XRayError:
    return XRayError(
        "unreadable_file", f"{path.name} cannot be imported ({_reason(error)}).", "Check the file."
    )


def missing_parts(path: str | Path) -> list[str]:
    """What the file at `path`, just opened by `open_alone`, refers to but lacks, except images.

    That is libraries, data missing from them, caches, material files of OBJ and layers of USD.
    """
    path = Path(path)
    found = {lib.filepath for lib in bpy.data.libraries if not _is_there(lib.filepath, lib.parent)}
    for kind in ("objects", "collections", "meshes", "materials"):
        for item in getattr(bpy.data, kind):
            if item.is_missing and item.library and item.library.filepath not in found:
                found.add(f"{item.name} in {item.library.filepath}")
    caches: Any = bpy.data.cache_files
    found.update(cache.filepath for cache in caches if not _is_there(cache.filepath, cache.library))
    if path.suffix.lower() == ".obj":
        libraries = [file for file in named_files(path) if file.suffix.lower() == ".mtl"]
        found.update(file.name for file in libraries if not file.is_file())
    found.update(_usd_files(path)[1])
    return sorted(found)


def _is_there(path: str, library: Any) -> bool:
    return Path(bpy.path.abspath(path, library=library)).exists()


def files_read(path: str | Path) -> list[Path]:
    """The files beside `path` that `open_alone` just read with it."""
    named: Any = bpy.utils.blend_paths(absolute=True, packed=True)
    return [*named_files(Path(path)), *map(Path, named), *_usd_files(Path(path))[0]]


def _usd_files(path: Path) -> tuple[list[Path], list[str]]:
    """The layers and assets of a USD file, and the missing ones among them.

    Both are empty for other files, and if this Blender cannot read USD.
    """
    if path.suffix.lower() not in (".usd", ".usda", ".usdc"):
        return [], []
    try:
        usd: Any = importlib.import_module("pxr.UsdUtils")
    except ImportError:
        return [], []
    layers, assets, missing = usd.ComputeAllDependencies(str(path))
    files = [Path(layer.realPath) for layer in layers if layer.realPath] + [*map(Path, assets)]
    return files, [str(name) for name in missing]


def empty_file() -> None:
    """Open an empty file."""
    # The factory startup file, so that the user's own cannot change the output.
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    _give_memory_back()


def _give_memory_back() -> None:
    """Make the C allocator return free memory now, or a worker would grow with every file.

    Afterwards it keeps freed memory until the next file: each view allocates and frees large
    arrays, and getting their pages from the system each time takes a tenth of a run.
    """
    if sys.platform.startswith("linux"):
        with suppress(AttributeError):  # musl has no such functions
            allocator = ctypes.CDLL(None)
            allocator.malloc_trim(0)
            allocator.mallopt(_M_TRIM_THRESHOLD, 1 << 29)
            allocator.mallopt(_M_MMAP_THRESHOLD, 1 << 25)


def save_objects(objects: list[bpy.types.Object], path: str | Path) -> None:
    """Write `objects` as .glb, .obj or .stl, or the whole file as .blend. The write is atomic.

    An .stl is in millimetres. An .obj has its materials and textures beside it.

    Raises XRayError `unknown_format`, `cannot_write`, and `no_faces` for an .stl of points.
    """
    path = Path(path)
    check_output(path)
    bpy.context.view_layer.update()  # otherwise it may lack newly linked objects
    try:
        with quietly():
            _WRITERS[path.suffix.lower()](objects, path)
    except (OSError, RuntimeError) as error:
        raise XRayError(
            "cannot_write", f"{path} cannot be written ({error}).", "Choose another file."
        ) from error


def _save_blend(_objects: list[bpy.types.Object], path: Path) -> None:
    with replacing(path) as temporary:
        temporary.unlink()  # otherwise Blender keeps the empty file as a .blend1 backup
        bpy.ops.wm.save_as_mainfile(filepath=str(temporary), copy=True, compress=True)


def _save_glb(objects: list[bpy.types.Object], path: Path) -> None:
    _select(objects)
    with replacing(path) as temporary:
        bpy.ops.export_scene.gltf(
            filepath=str(temporary),
            export_format="GLB",
            use_selection=True,
            use_mesh_vertices=True,  # points
        )


def _save_stl(objects: list[bpy.types.Object], path: Path) -> None:
    surface = surface_from_objects(objects, bpy.context.evaluated_depsgraph_get())
    write_stl(path, surface, bpy.context.scene.unit_settings.scale_length)


def _save_obj(objects: list[bpy.types.Object], path: Path) -> None:
    _select(objects)
    with replacing_together(path) as temporary, _images_as_files(objects, temporary):
        bpy.ops.wm.obj_export(
            filepath=str(temporary),
            export_selected_objects=True,
            export_colors=True,
            export_pbr_extensions=True,
            path_mode="STRIP",
        )


@contextmanager
def _images_as_files(objects: list[bpy.types.Object], path: Path) -> Iterator[None]:
    """Write the images of the objects' materials beside `path`, as its exporter names them."""
    trees: list[Any] = [
        slot.material.node_tree
        for obj in objects
        for slot in obj.material_slots
        if slot.material is not None and slot.material.node_tree is not None
    ]
    nodes = [node for tree in trees for node in tree.nodes if node.type == "TEX_IMAGE"]
    kept = {}
    for number, image in enumerate(dict.fromkeys(node.image for node in nodes if node.image)):
        kept[image] = image.filepath_raw
        file = path.with_name(f"{path.stem}-{number + 1}.png")
        pixels = texture_from_image(image)
        if pixels is not None:
            write_png(file, pixels)
            image.filepath_raw = str(file)
    try:
        yield
    finally:
        for image, filepath in kept.items():
            image.filepath_raw = filepath


def _select(objects: list[bpy.types.Object]) -> None:
    for obj in bpy.context.view_layer.objects:
        obj.select_set(obj in objects)


_WRITERS = {".glb": _save_glb, ".obj": _save_obj, ".stl": _save_stl, ".blend": _save_blend}


def check_output(path: Path) -> None:
    """Raise XRayError `unknown_format` if `save_objects` cannot write this kind of file."""
    check_format(path, OUTPUTS)


def _operator(name: str) -> Any:
    """The operator called `name`, or None if it is not registered."""
    module, _, function = name.partition(".")
    operator = getattr(getattr(bpy.ops, module), function)
    try:
        operator.get_rna_type()  # `dir` would list all of Blender's operators, for 7 ms a file
    except KeyError:
        return None
    return operator


def _reason(error: Exception) -> str:
    """The last meaningful line of the error; importers written in Python give a traceback."""
    lines = [line.strip() for line in str(error).splitlines()]
    reasons = [line for line in lines if line and not line.startswith(("Location:", "File ", "^"))]
    return reasons[-1].removeprefix("Error: ").rstrip(".") if reasons else "no reason given"
