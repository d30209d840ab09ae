"""The tests here run the extension as a user has it: built, validated and installed from its zip.

They need Blender as a Python module (`pip install bpy`) and are skipped without. The tests of
one session share one Blender; each starts with an empty file.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What the extension is built from: this checkout, or a copy of it with something added.
SOURCE = Path(os.environ.get("XRAY_SOURCE", ROOT))
MODULE = "bl_ext.user_default.xray"
# Toy's tests need a copy of the source with Toy in it: test_new_system.py makes it.
collect_ignore = [] if "XRAY_SOURCE" in os.environ else ["toy"]

# Blender reads this once, when it is imported.
os.environ["BLENDER_USER_RESOURCES"] = tempfile.mkdtemp(prefix="xray-blender-")
bpy = pytest.importorskip("bpy", reason="Blender's module bpy is not installed")


def _blender_ext(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Blender's own extension builder; it needs no Blender."""
    scripts = Path(bpy.utils.system_resource("SCRIPTS"))
    tool = scripts / "addons_core" / "bl_pkg" / "cli" / "blender_ext.py"
    return subprocess.run(
        [sys.executable, str(tool), *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="session")
def extension_zip(tmp_path_factory) -> Path:
    """The extension's zip, built from this checkout."""
    path = tmp_path_factory.mktemp("build") / "xray.zip"
    built = _blender_ext("build", "--source-dir", str(SOURCE), "--output-filepath", str(path))
    assert built.returncode == 0, built.stdout + built.stderr
    validated = _blender_ext("validate", str(path))
    assert validated.returncode == 0, validated.stdout + validated.stderr
    return path


@pytest.fixture(scope="session")
def _installed(extension_zip) -> None:
    result = bpy.ops.extensions.package_install_files(
        filepath=str(extension_zip), repo="user_default", enable_on_install=False
    )
    assert result == {"FINISHED"}


@pytest.fixture
def xray(_installed):
    """The installed and enabled extension over an empty file; its root module."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    assert bpy.ops.preferences.addon_enable(module=MODULE) == {"FINISHED"}
    yield sys.modules[MODULE]
    if MODULE in bpy.context.preferences.addons:
        assert bpy.ops.preferences.addon_disable(module=MODULE) == {"FINISHED"}


@pytest.fixture
def part(xray):
    """Import a module of the installed extension: `part("operators.tasks.jobs")`."""
    return lambda name: importlib.import_module(f"{MODULE}.{name}")


@pytest.fixture
def convert(part):
    return part("operators.convert")


@pytest.fixture
def surface_of(convert):
    """The `Surface` of objects as they are evaluated now."""

    def read(*objects):
        bpy.context.view_layer.update()
        return convert.surface_from_objects(objects, bpy.context.evaluated_depsgraph_get())

    return read


@pytest.fixture
def cube(xray):
    """A cube with side 2 at the origin, selected and active."""
    bpy.ops.mesh.primitive_cube_add()
    return bpy.context.object


@pytest.fixture
def linked_collection(tmp_path):
    """Makes the active collection one from a library, to which no object can be linked."""

    def activate():
        made = bpy.data.collections.new("Linked")
        bpy.data.libraries.write(str(tmp_path / "library.blend"), {made})
        bpy.data.collections.remove(made)
        with bpy.data.libraries.load(str(tmp_path / "library.blend"), link=True) as (_, target):
            target.collections = ["Linked"]
        bpy.context.scene.collection.children.link(target.collections[0])
        layer = bpy.context.view_layer
        layer.active_layer_collection = layer.layer_collection.children["Linked"]
        assert bpy.context.collection.library is not None

    return activate


@pytest.fixture
def fake_runtime(part):
    """A runtime whose generator makes a ball; it ends with the test."""
    service = part("operators.runtime.service")
    fake = Path(__file__).with_name("fake_server.py")
    service.command = service.Command(sys.executable, (str(fake),))
    yield service
    service.stop()
    service.command = None


@pytest.fixture
def run_tasks(part):
    """Do what Blender's timer does, which never fires without a window."""
    jobs = part("operators.tasks.jobs")

    def run(seconds: float = 20.0, until=lambda: False) -> None:
        end = time.monotonic() + seconds
        while jobs.queue and not until():
            assert time.monotonic() < end, f"still at {jobs.queue[0].progress}"
            time.sleep(jobs._tick() or 0.0)

    return run


class Timers:
    """Blender's timers as far as they are needed; `fire` is what its window's loop does."""

    def __init__(self):
        self.functions = []

    def register(self, function, *, persistent=False, **_):
        assert persistent, "File > New would end it"
        self.functions.append(function)

    def unregister(self, function):
        self.functions.remove(function)

    def is_registered(self, function):
        return function in self.functions

    def fire(self):
        """Call each once. What raises or returns None is dropped, and not before it is through."""
        for function in tuple(self.functions):
            again = None
            with suppress(Exception):
                again = function()
            if again is None:
                self.functions.remove(function)


@pytest.fixture
def timers(xray, monkeypatch):
    """Timers that fire when they are told to, in place of Blender's, which need a window."""
    fake = Timers()
    for name in ("register", "unregister", "is_registered"):
        monkeypatch.setattr(bpy.app.timers, name, getattr(fake, name))
    return fake


_exit_status = 0


def pytest_sessionfinish(session, exitstatus):
    global _exit_status
    _exit_status = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    # Blender's destructors can hang or crash when Python ends; by now all is reported.
    shutil.rmtree(os.environ["BLENDER_USER_RESOURCES"], ignore_errors=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_exit_status)
