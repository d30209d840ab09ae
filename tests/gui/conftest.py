"""Tests in a Blender with a window (`make test-gui`); skipped where there can be none."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import rig

RUNTIME = (rig.ROOT / ".venv" / "runtime").resolve()


@pytest.fixture(scope="session")
def screen():
    """The virtual screen."""
    try:
        folder = rig.rootfs()
    except rig.Unavailable as reason:
        pytest.skip(f"no Blender with a window: {reason}")
    shutil.rmtree(rig.OUT, ignore_errors=True)
    screen = rig.Screen(folder, RUNTIME / "venv" / "bin" / "python")
    yield screen
    screen.close()


@pytest.fixture(scope="session")
def installed(screen) -> Path:
    """A user's folder with the extension installed and enabled, from its zip."""
    return rig.install_extension(screen)


@pytest.fixture
def start(screen, installed, request):
    """Starts a Blender with the sidebar open on X-Ray's tab; it ends with the test."""
    started = []

    def start(**extra: str) -> rig.Blender:
        name = request.node.name.removeprefix("test_").replace("_", "-")
        name += f"-{len(started) + 1}" if started else ""
        user = rig.OUT / f"user-{name}"
        shutil.rmtree(user, ignore_errors=True)
        shutil.copytree(installed, user)
        extra = {"XRAY_RUNTIME_DIR": str(RUNTIME), **extra}
        blender = rig.Blender(screen, name, user, **extra)
        started.append((blender, user))
        blender.until("show_tab()")
        return blender

    yield start
    for blender, user in started:
        blender.close()
        shutil.rmtree(user, ignore_errors=True)


@pytest.fixture
def blender(start) -> rig.Blender:
    """A Blender with the real runtime installed."""
    return start()


@pytest.fixture
def fake(blender) -> rig.Blender:
    """A Blender whose runtime is the real server with a generator that makes balls."""
    return with_balls(blender)


def with_balls(blender: rig.Blender) -> rig.Blender:
    """Have `blender` take the fake generator."""
    server = rig.ROOT / "tests" / "blender" / "fake_server.py"
    python = RUNTIME / "venv" / "bin" / "python"
    blender.do(
        f"""
import sys
service = sys.modules["{rig.MODULE}.operators.runtime.service"]
service.command = service.Command("{python}", ("{server}",))
"""
    )
    return blender


@pytest.fixture
def other(start, fake) -> rig.Blender:
    """A second Blender beside `fake`, with the same user's settings."""
    return with_balls(start())


@pytest.fixture
def picture(screen):
    """Copies the demo's image to a name, which tells the fake generator what to do."""

    def copy(name: str) -> Path:
        path = rig.OUT / f"{name}.png"
        shutil.copy(rig.ROOT / "tests" / "demo" / "toadstool.png", path)
        return path

    return copy
