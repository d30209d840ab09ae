"""Finishes meshes in a second Blender process, so that the first one's window stays responsive.

Blender cannot interrupt its remesher, decimator and unwrapper, nor run them in a thread. The main
thread only writes the mesh to a file and appends the finished one.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np

from ...xray_addon.errors import XRayError
from ...xray_addon.progress import Progress
from ..tasks.blender_process import BlenderProcess, script_command
from . import apart
from .finishing import complete, finish, is_reshaped, remove_unused

if TYPE_CHECKING:
    from ...xray_addon.settings.result import ResultSettings
    from ..tasks import jobs

FINISHING = Progress("finish", message="Finishing the mesh")
WAITING = Progress("finish", message="Waiting until you leave the mesh's mode")

logger = logging.getLogger(__name__)


def finish_steps(obj: bpy.types.Object, settings: ResultSettings) -> jobs.Steps:
    """`finish` while Blender's window stays responsive; the result is the scale factor.

    Without a window it just calls `finish`. `obj` keeps its mesh until the finished one replaces
    it, which waits for Object Mode.

    Raises XRayError as `finish`, `object_gone` if `obj` was removed meanwhile, `no_blender` and
    `worker_died`.
    """
    found: Any = obj
    if bpy.app.background or not (is_reshaped(found.data, settings) or settings.asset):
        yield FINISHING
        return finish(_still_there(found), settings)
    factor = yield from finish_apart(found, settings)
    return factor


def finish_apart(obj: Any, settings: ResultSettings) -> jobs.Steps:
    """`finish_steps`, always in a second Blender."""
    with tempfile.TemporaryDirectory(prefix="xray-") as name:
        folder = Path(name)
        _hand_over(obj, settings, folder)
        yield from _run(folder)
        answer = json.loads((folder / apart.ANSWER).read_text("utf-8"))
        if "error" in answer:
            raise XRayError.from_dict(answer["error"])
        yield from in_object_mode(lambda: _still_there(obj))
        _take_back(obj, folder, new_materials=answer["new_materials"])
        yield FINISHING
        picture = np.load(folder / apart.PICTURE) if settings.asset else None
    return complete(_still_there(obj), settings, picture)


def in_object_mode(find: Callable[[], Any]) -> jobs.Steps:
    """Wait until the object `find()` is in Object Mode; the result is the object.

    In the other modes Blender ignores a new mesh, and what is written to the mesh is lost.
    """
    while (obj := find()).mode != "OBJECT":
        yield WAITING
    return obj


def _still_there(obj: Any) -> Any:
    try:
        obj.name  # noqa: B018 - fails if undo or another file has removed it
    except ReferenceError as error:
        raise XRayError(
            "object_gone", "The mesh was removed while it was being finished.", "Try again."
        ) from error
    return obj


def _hand_over(obj: Any, settings: ResultSettings, folder: Path) -> None:
    task = {"name": obj.name, "mesh": obj.data.name, "settings": settings.to_dict()}
    (folder / apart.TASK).write_text(json.dumps(task), "utf-8")
    bpy.data.libraries.write(
        str(folder / apart.GIVEN), {obj.data}, path_remap="ABSOLUTE", fake_user=True
    )


def _run(folder: Path) -> jobs.Steps:
    """Run the second Blender to its end."""
    command = script_command(apart.__file__, [str(folder)])
    with BlenderProcess(command, folder / "log.txt") as blender:
        while blender.exit_code is None:
            yield FINISHING
    # A crash while it quits does not matter.
    if not (folder / apart.ANSWER).is_file():
        logger.error("Finishing a mesh failed:\n%s", blender.output)
        raise blender.death(
            "it finished the mesh",
            "Choose fewer faces or a smaller texture. Blender's console has the details.",
        )


def _take_back(obj: Any, folder: Path, *, new_materials: bool) -> None:
    """Give `obj` the finished mesh."""
    made = str(folder / apart.MADE)
    before, name = obj.data, obj.data.name
    libraries: Any = bpy.data.libraries
    with libraries.load(made) as (source, target):
        target.meshes = list(source.meshes)
    for library in [each for each in libraries if each.filepath == made]:
        libraries.remove(library)
    (mesh,) = target.meshes
    old = list(before.materials)
    if new_materials:
        for material in mesh.materials:
            material.name = obj.name
    else:
        for slot, material in enumerate(old):
            mesh.materials[slot] = material
    mesh.use_fake_user = False
    obj.data = mesh
    if not before.users:
        bpy.data.meshes.remove(before)
    mesh.name = name
    remove_unused(old, mesh.materials)
