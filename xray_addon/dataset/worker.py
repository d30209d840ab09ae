"""Starts Blender as a dataset worker. `dataset.store` describes its protocol."""

from __future__ import annotations

from pathlib import Path

from ..settings.dataset import DatasetSettings

# Seconds per item after which its worker is killed.
ITEM_TIMEOUT = 900.0
EXTENSION = "bl_ext.user_default.xray"

# Runs `blender -c xray` in Blender as a Python module. It exits without cleanup, because Blender's
# destructors can hang; all output has been written by then.
_MODULE = """\
import importlib, os, sys, bpy
package = sys.argv[1]
if package not in sys.modules:
    bpy.ops.preferences.addon_enable(module=package)
code = importlib.import_module(package + ".operators.command").main(sys.argv[2:])
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)
"""


def worker_command(
    blender: str, folder: Path, settings: DatasetSettings, package: str = EXTENSION
) -> list[str]:
    """The command that starts a worker for the dataset in `folder`.

    blender : Blender's executable, or a Python with the module bpy; its name begins with "python".
    package : the extension's package name in that Blender.
    """
    arguments = ["dataset-worker", str(folder), *settings.to_arguments()]
    if Path(blender).name.lower().startswith("python"):
        return [blender, "-c", _MODULE, package, *arguments]
    return [blender, "--command", "xray", *arguments]
