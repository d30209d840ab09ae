"""Hands the open file's scene to a second Blender, which captures its objects.

What is done in the first Blender meanwhile, such as editing, undoing or saving, changes nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import bpy

from ...xray_addon.errors import XRayError

SCENE = "scene.blend"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for `open_scene`."""
    parser.add_argument(
        "--file", type=Path, help="a .blend file whose objects are the items, by their names"
    )
    parser.add_argument("--scene", default="", help="the scene of that file")
    parser.add_argument("--view-layer", default="", help="the view layer of that scene")
    parser.add_argument("--scripts", action="store_true", help="run that file's scripts")


def write_scene(folder: Path) -> list[str]:
    """Write the current scene, as it is now, to a file in `folder`.

    The result are the options with which `open_scene` opens it. Raises XRayError `unsaved_image`,
    and `cannot_write`.
    """
    context: Any = bpy.context
    scene, texts = context.scene, bpy.data.texts
    _check_images()
    path = folder / SCENE
    try:
        bpy.data.libraries.write(str(path), {scene, *texts}, path_remap="ABSOLUTE")
    except (OSError, RuntimeError) as error:
        raise XRayError(
            "cannot_write", f"{path} cannot be written ({error}).", "Free some space on its disk."
        ) from error
    options = [f"--file={path}", f"--scene={scene.name}", f"--view-layer={context.view_layer.name}"]
    # Scripts run there if they run here.
    return options if bpy.app.autoexec_fail else [*options, "--scripts"]


def open_scene(arguments: argparse.Namespace) -> bool:
    """Open the scene that the options name; False if they name none."""
    if arguments.file is None:
        return False
    bpy.ops.wm.open_mainfile(
        filepath=str(arguments.file), load_ui=False, use_scripts=arguments.scripts
    )
    window: Any = bpy.context.window
    window.scene = bpy.data.scenes[arguments.scene]
    window.view_layer = window.scene.view_layers[arguments.view_layer]
    return True


def _check_images() -> None:
    """Raise XRayError `unsaved_image` for an image whose pixels a file would not hold."""
    images: Any = bpy.data.images
    results = ("RENDER_RESULT", "COMPOSITING")
    unsaved = [
        each.name for each in images if each.is_dirty and each.users and each.type not in results
    ]
    if unsaved:
        raise XRayError(
            "unsaved_image",
            f"These images have unsaved changes: {', '.join(unsaved)}.",
            "Save or pack them (Image > Save, or Pack).",
        )
