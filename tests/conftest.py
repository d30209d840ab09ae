"""What every test may use: where the shared meshes and golden files are, if they are there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def _folder(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable, ROOT.parent / "shared" / default))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; set {variable} to run this test")
    return folder


@pytest.fixture(scope="session")
def assets() -> Path:
    """Open meshes, scans and photos, which are not part of the repo."""
    return _folder("XRAY_ASSETS", "assets")


@pytest.fixture(scope="session")
def golden() -> Path:
    """What the published code gave, which is not part of the repo."""
    return _folder("XRAY_GOLDEN", "golden")
