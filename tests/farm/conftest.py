"""A folder of made-up meshes, and a made-up Blender that is told what to do wrong with them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("submitit", reason="the farm's requirements are not installed")

from farm.run import Work
from farm.settings import FarmSettings
from xray_addon.settings.dataset import DatasetSettings

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def fake_blender(tmp_path_factory) -> Path:
    """An executable that takes `-c xray dataset-worker ...`."""
    path = tmp_path_factory.mktemp("bin") / "fake-blender"
    worker = HERE / "fake_worker.py"
    path.write_text(f'#!/bin/sh\nshift 2\nexec "{sys.executable}" "{worker}" "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def source(tmp_path):
    """Make a folder of items: `source(a="ok", b="crash")`, or so many that are "ok"."""

    def make(count: int = 0, order: str = "ok", **orders: str) -> Path:
        folder = tmp_path / "source"
        folder.mkdir(exist_ok=True)
        orders |= {f"item{number:03d}": order for number in range(count)}
        for name, text in orders.items():
            (folder / f"{name}.obj").write_text(text)
        return folder

    return make


@pytest.fixture
def farm_settings(fake_blender) -> FarmSettings:
    return FarmSettings(blender=str(fake_blender), jobs=2, timeout=30.0)


@pytest.fixture
def dataset_settings() -> DatasetSettings:
    return DatasetSettings(views=2)


@pytest.fixture
def work(tmp_path, farm_settings, dataset_settings):
    """`work(source, out=...)`: what the farm is to do, with two views an item."""

    def make(source: Path, out: str | Path | None = None, **changes) -> Work:
        farm = FarmSettings(**(farm_settings.to_dict() | changes))
        return Work(str(source), str(out or tmp_path / "out"), dataset_settings, farm)

    return make


@pytest.fixture
def contents():
    """All files of a folder by name, without logs/, the only one that holds times."""

    def read(folder: Path) -> dict[str, bytes]:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(Path(folder).rglob("*"))
            if path.is_file() and path.relative_to(folder).parts[0] != "logs"
        }

    return read


@pytest.fixture
def worker_ids():
    """The processes that worked for a dataset, dead or alive, in the order of their start."""

    def read(folder: Path) -> list[int]:
        return [int(line) for line in (folder / "logs" / "workers.txt").read_text().split()]

    return read
