"""A fourth system is a file and a folder: with nothing else touched it works everywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOY = Path(__file__).with_name("toy")
PARTS = ("xray_addon", "operators", "panels", "runtime")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the extension's source with Toy's description and its folder."""
    copy = tmp_path_factory.mktemp("copy") / "toy"
    ignored = shutil.ignore_patterns("__pycache__")
    for part in PARTS:
        shutil.copytree(ROOT / part, copy / part, ignore=ignored)
    for file in ("__init__.py", "blender_manifest.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / file, copy)
    shutil.copy(TOY / "toy.py", copy / "xray_addon" / "systems")
    (copy / "runtime" / "toy").mkdir()
    (copy / "runtime" / "toy" / "__init__.py").write_text('"""Toy."""\n')
    shutil.copy(TOY / "generator.py", copy / "runtime" / "toy")
    return copy


def run(command: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **environment}
    return subprocess.run(
        command, cwd=cwd, env=variables, capture_output=True, text=True, check=False
    )


def test_in_blender(source):
    tests = ["-m", "pytest", str(TOY / "test_in_blender.py"), "-q", "-p", "no:cacheprovider"]
    done = run([sys.executable, *tests], ROOT, XRAY_SOURCE=str(source))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout


def test_on_the_command_line_of_the_runtime(source, tmp_path):
    folder = os.environ.get("XRAY_RUNTIME_DIR", "")
    python = Path(folder) / "venv" / "bin" / "python"
    if not folder or not python.exists():
        pytest.skip("the model runtime is not installed here; `make setup` does it")
    out = tmp_path / "ball.glb"
    generate = [str(python), "-m", "runtime", "generate", "--generator", "toy", "-o", str(out)]
    done = run([*generate, "--category", "ball", "--corners", "9", "--json"], source)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["faces"] == 9
    written = out.read_bytes()
    tree = json.loads(written[20 : 20 + int.from_bytes(written[12:16], "little")])
    assert "metallicRoughnessTexture" in tree["materials"][0]["pbrMetallicRoughness"]
    refused = run([*generate, "--category", "ball", "--object-size", "0.5"], source)
    assert refused.returncode == 2
    assert "object_size is a setting of Slice3D, not of Toy" in refused.stderr
    helped = run([str(python), "-m", "runtime", "generate", "--help"], source).stdout
    assert "--corners" in helped
    assert "--category" in helped


def test_the_runtime_is_imported_without_torch(source):
    code = "import sys, runtime, xray_addon.systems as s; print('torch' in sys.modules, *s.SYSTEMS)"
    done = run([sys.executable, "-c", code], source)
    assert done.stdout.split()[:2] == ["False", "xray"], done.stderr
    assert "toy" in done.stdout.split()
