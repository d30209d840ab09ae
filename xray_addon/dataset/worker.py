"""How a Blender that works on a dataset is started; what it says is `dataset`'s worker protocol."""

from __future__ import annotations

from pathlib import Path

from ..settings.dataset import DatasetSettings

# Seconds that one item may take before its worker is ended.
ITEM_TIMEOUT = 900.0
EXTENSION = "bl_ext.user_default.xray"

# What `blender -c xray` does, for Blender as a Python module. It ends at once: Blender's
# destructors can hang, and by then all is said.
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
    """What starts a worker that writes into the dataset in `folder`.

    blender : Blender's executable, or a Python with the module bpy, whose name begins with python.
    package : the extension as that Python's Blender names it.
    """
    arguments = ["dataset-worker", str(folder), *settings.to_arguments()]
    if Path(blender).name.lower().startswith("python"):
        return [blender, "-c", _MODULE, package, *arguments]
    return [blender, "--command", "xray", *arguments]
