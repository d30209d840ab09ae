"""The farm with real workers: Blender as a module, and the extension as a user has it.

With XRAY_BLENDER, the path of a Blender, they are processes of that one: `blender -c xray ...`.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers import lines, rows, statuses

from farm.run import Work, run
from farm.settings import FarmSettings
from xray_addon.settings.dataset import DatasetSettings
from xray_addon.xray import XRay

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(os.environ.get("XRAY_BLENDER_PYTHON", ROOT / ".venv" / "blender" / "bin" / "python"))

INSTALL = """
import os, subprocess, sys
from pathlib import Path
import bpy
scripts = Path(bpy.utils.system_resource("SCRIPTS"))
tool = scripts / "addons_core" / "bl_pkg" / "cli" / "blender_ext.py"
archive = str(Path(sys.argv[2]) / "xray.zip")
command = [sys.executable, str(tool), "build", "--source-dir", sys.argv[1]]
subprocess.run([*command, "--output-filepath", archive], check=True)
bpy.ops.extensions.package_install_files(
    filepath=archive, repo="user_default", enable_on_install=False
)
sys.stdout.flush()
os._exit(0)
"""

CUBE = """\
o cube
v -{a} -{a} -{a}
v {a} -{a} -{a}
v {a} {a} -{a}
v -{a} {a} -{a}
v -{a} -{a} {a}
v {a} -{a} {a}
v {a} {a} {a}
v -{a} {a} {a}
f 4 3 2 1
f 5 6 7 8
f 1 2 6 5
f 3 4 8 7
f 2 3 7 6
f 1 5 8 4
"""


@pytest.fixture(scope="module")
def blender(tmp_path_factory):
    """A Python with Blender, or a Blender, in which the extension is installed."""
    resources = tmp_path_factory.mktemp("blender")
    if program := os.environ.get("XRAY_BLENDER"):
        archive = resources / "xray.zip"
        command = [program, "--command", "extension"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BLENDER_USER_RESOURCES", str(resources))
            for arguments in (
                ("build", "--source-dir", ROOT, "--output-filepath", archive),
                ("install-file", "-r", "user_default", "--enable", archive),
            ):
                subprocess.run([*command, *arguments], check=True, capture_output=True)
            yield Path(program)
        return
    if not PYTHON.exists():
        pytest.skip(f"{PYTHON} is not there; set XRAY_BLENDER_PYTHON to a Python with bpy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BLENDER_USER_RESOURCES", str(resources))
        done = subprocess.run(
            [PYTHON, "-c", INSTALL, ROOT, resources], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield PYTHON


@pytest.fixture(scope="module")
def made(blender, tmp_path_factory):
    """What the farm made of three cubes and a file that is none."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "source").mkdir()
    for name, half in (("small", 0.1), ("middle", 0.5), ("large", 20)):
        (folder / "source" / f"{name}.obj").write_text(CUBE.format(a=half))
    (folder / "source" / "broken.glb").write_bytes(b"no mesh")
    work = Work(
        str(folder / "source"),
        str(folder / "out"),
        DatasetSettings(views=2, layers=4, size=32, image="cast", image_size=64),
        FarmSettings(blender=str(blender), jobs=2, tar=True),
    )
    return work, run(work)


def test_all_that_are_meshes_are_there(made):
    work, results = made
    out = Path(work.out)
    assert statuses(results) == {
        "small": "done",
        "middle": "done",
        "large": "done",
        "broken": "failed",
    }
    assert rows(out) == ["large", "middle", "small"]
    assert len(lines(out)) == 6
    assert not (out / ".work").exists()
    # Whatever their size was, it is one.
    for uid in rows(out):
        xray = XRay.load(out / "xrays" / uid / "001.npz")
        assert xray.shape == (4, 32, 32)
        assert np.count_nonzero(xray.hits_per_layer) == 2


def test_what_failed_says_why(made):
    _, results = made
    (broken,) = (result for result in results if result.uid == "broken")
    assert broken.code == "unreadable_file"
    assert Path(broken.log).is_file()


def test_a_second_run_finds_it_all(made):
    work, _ = made
    again = run(work)
    assert {result.uid for result in again if result.status == "exists"} == {
        "small",
        "middle",
        "large",
    }
