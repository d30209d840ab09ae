"""The program of the second Blender: it finishes one mesh and ends.

usage: blender --background --factory-startup --python apart.py -- FOLDER
       python apart.py -- FOLDER   (with Blender as a Python module)

FOLDER contains the mesh (GIVEN) and what to do (TASK). The program adds the finished mesh (MADE), a
preview if it becomes an asset (PICTURE), and the ANSWER.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import bpy
import numpy as np

GIVEN, MADE = "given.blend", "made.blend"
TASK, ANSWER, PICTURE = "task.json", "answer.json", "picture.npy"

PACKAGE = "xray"


def main(folder: Path) -> None:
    """Do the task in `folder`."""
    _import_extension()
    errors = importlib.import_module(f"{PACKAGE}.xray_addon.errors")
    try:
        answer = _work(folder)
    except errors.XRayError as error:
        answer = {"error": error.to_dict()}
    with importlib.import_module(f"{PACKAGE}.xray_addon.files.atomic").replacing(
        folder / ANSWER
    ) as temporary:
        temporary.write_text(json.dumps(answer), "utf-8")


def _import_extension() -> None:
    """Import the extension's package from its folder, without enabling the extension."""
    root = Path(__file__).resolve().parents[2]
    spec = importlib.util.spec_from_file_location(
        PACKAGE, root / "__init__.py", submodule_search_locations=[str(root)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules[PACKAGE] = package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)


def _work(folder: Path) -> dict[str, Any]:
    finishing = importlib.import_module(f"{PACKAGE}.operators.results.finishing")
    results = importlib.import_module(f"{PACKAGE}.xray_addon.settings.result")
    task = json.loads((folder / TASK).read_text("utf-8"))
    settings = results.ResultSettings.from_dict(task["settings"])
    libraries: Any = bpy.data.libraries
    with libraries.load(str(folder / GIVEN)) as (_, target):
        target.meshes = [task["mesh"]]
    obj: Any = bpy.data.objects.new(task["name"], target.meshes[0])
    before = list(obj.data.materials)
    finishing.reshape(obj, settings)
    if settings.asset:
        np.save(folder / PICTURE, finishing.asset_picture(obj))
    kept = list(obj.data.materials) == before
    if kept:  # the first Blender has these
        for slot in range(len(before)):
            obj.data.materials[slot] = None
    libraries.write(str(folder / MADE), {obj.data}, fake_user=True)
    return {"new_materials": not kept}


if __name__ == "__main__":
    main(Path(sys.argv[sys.argv.index("--") + 1]))
