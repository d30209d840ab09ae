"""The folders for installed and downloaded files: per user, shared by every Blender."""

from __future__ import annotations

import os
import sys
from os import PathLike
from pathlib import Path


def default_folder() -> Path:
    """The folder of the environment: per user, shared by every Blender, with a short path.

    The environment variable XRAY_RUNTIME_DIR overrides it.
    """
    if chosen := os.environ.get("XRAY_RUNTIME_DIR"):
        return Path(chosen).absolute()
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return base / "xray" / "runtime"


CACHE_VARIABLE = "XRAY_CHECKPOINTS"  # the folder of checkpoints, unless one is chosen


def cache_folder(chosen: str | PathLike[str] | None = None) -> Path:
    """The folder of checkpoints: `chosen`, else that of `CACHE_VARIABLE`, else per user."""
    folder = chosen or os.environ.get(CACHE_VARIABLE)
    if folder:
        return Path(folder).expanduser().absolute()
    return default_folder().parent / "checkpoints"
