"""This checkout as an extension of Blender as a Python module, for benchmarks."""

from __future__ import annotations

import importlib
import os
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MODULE = "bl_ext.user_default.xray"
RESOURCES = Path(tempfile.mkdtemp(prefix="xray-blender-"))
# Blender reads this once, when it is imported.
os.environ["BLENDER_USER_RESOURCES"] = str(RESOURCES)


def enable(root: Path = ROOT) -> None:
    """Enable the extension in the checkout at `root`."""
    import bpy

    place = RESOURCES / "extensions" / "user_default" / "xray"
    place.parent.mkdir(parents=True)
    place.symlink_to(root)
    bpy.ops.preferences.addon_enable(module=MODULE)


def part(name: str) -> Any:
    """The module `name` of the extension, such as "xray_addon.dataset.store"."""
    return importlib.import_module(f"{MODULE}.{name}")
