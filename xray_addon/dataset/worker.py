"""Starts Blender as a dataset worker. `dataset.store` describes its protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..settings.dataset import DatasetSettings

# Seconds after which a worker is killed: for an item, or in a window for one view.
ITEM_TIMEOUT = 900.0
EXTENSION = "bl_ext.user_default.xray"

# Runs `blender -c xray`, even if the extension was enabled after the preferences were saved. It
# exits without cleanup, because Blender's destructors can hang; all output is written by then.
_COMMAND = """\
import importlib, os, sys, bpy
package, *arguments = sys.argv[sys.argv.index("--") + 1:]
if package not in sys.modules:
    bpy.ops.preferences.addon_enable(module=package)
code = importlib.import_module(package + ".operators.command").main(arguments)
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)
"""


def worker_command(blender: str, folder: Path, settings: DatasetSettings) -> list[str]:
    """The command that starts a worker for the dataset in `folder`.

    blender : Blender's executable, or a Python with the module bpy.
    """
    arguments = ["dataset-worker", str(folder), *settings.to_arguments()]
    return blender_command(blender, arguments)


def blender_command(blender: str, arguments: Sequence[str], package: str = "") -> list[str]:
    """The command that runs ``blender -c xray`` with `arguments`.

    blender : Blender's executable, or a Python with the module bpy; its name begins with "python".
    package : the extension's package name in that Blender, which is enabled if it is not yet; ""
        for an extension that is.
    """
    if Path(blender).name.lower().startswith("python"):
        return [blender, "-c", _COMMAND, "--", package or EXTENSION, *arguments]
    if not package:
        return [blender, "--command", "xray", *arguments]
    run = ["--background", "--python-exit-code", "1", "--python-expr", _COMMAND]
    return [blender, *run, "--", package, *arguments]
