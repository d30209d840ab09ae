"""Who may import whom, and that the core needs nothing but NumPy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import house
import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "diffusers", "transformers", "rembg", "onnxruntime", "numba"}

# What a package must never import, as top-level names.
FORBIDDEN = {
    "xray_addon": {"bpy", "bmesh", "mathutils", "operators", "panels", "runtime", "scipy", "PIL"}
    | {"farm"}
    | HEAVY,
    "operators": {"panels", "runtime", "farm", "scipy", "PIL"} | HEAVY,
    "panels": {"runtime", "farm", "scipy", "PIL"} | HEAVY,
    "runtime": {"bpy", "bmesh", "mathutils", "operators", "panels", "farm"},
    "farm": {"bpy", "bmesh", "mathutils", "operators", "panels", "runtime", "scipy", "PIL"} | HEAVY,
}


# The floors of each package, the ground first: a room (a file or sub-package) imports from floors
# below its own. "*" stands for all rooms that are not named: in the runtime, the systems.
FLOORS = {
    "xray_addon": [
        {"errors", "color", "camera", "surface", "compiling"},
        {"progress", "settings", "files", "canonical"},
        {"xray"},
        {"casting", "reconstruction", "published", "metrics"},
        {"pictures"},
        {"slices"},
        {"dataset"},
        {"*"},
        {"systems", "extras"},
        {"process"},
    ],
    "operators": [
        {"interface"},
        {"convert", "tasks", "properties"},
        {"results"},
        {"layers", "runtime"},
        {"dataset", "generate"},
        {"*"},
        {"command"},
    ],
    "panels": [{"widgets"}, {"weights"}, {"*"}],
    "runtime": [
        {"errors", "torch_helpers", "checkpoints", "generator"},
        {"images"},
        {"meshes", "training"},
        {"*"},
        {"registry"},
        {"evaluation", "server"},
        {"__main__"},
    ],
    "farm": [{"settings", "shards", "worker"}, {"pool"}, {"run"}, {"cluster"}, {"__main__"}],
}


def imported(path: Path) -> set[str]:
    """The top-level name of everything that the module at `path` imports, anywhere in it.

    A relative import counts as what it reaches: `from ..operators import x` is "operators".
    """
    package = path.relative_to(ROOT).parent.parts
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            target = base + (node.module.split(".") if node.module else [])
            if target:
                names.add(target[0])
            else:
                names |= {alias.name for alias in node.names}
    return names


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", FORBIDDEN)
def test_the_arrows_between_packages(package):
    assert modules(package)
    wrong = {
        path.relative_to(ROOT).as_posix(): sorted(found)
        for path in modules(package)
        if (found := imported(path) & FORBIDDEN[package])
    }
    if package == "xray_addon":
        # The one module that is imported only where numba is installed.
        assert wrong.pop("xray_addon/compiling.py") == ["numba"]
    assert not wrong


@pytest.mark.parametrize("package", FLOORS)
def test_rooms_import_from_the_floors_below_them(package):
    floors = FLOORS[package]
    place = {room: level for level, rooms in enumerate(floors) for room in rooms}
    upwards = []
    for module, targets in house.graph().items():
        for target in targets:
            (here, one), (there, other) = ((*name.split("."), "")[:2] for name in (module, target))
            if here != package or there != package or one == other or not one or not other:
                continue
            if place.get(one, place.get("*")) <= place.get(other, place.get("*")):
                upwards.append(f"{module} -> {target}")
    assert not upwards


def test_no_files_import_each_other():
    assert house.circles(house.graph()) == []
    assert house.circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


@pytest.mark.parametrize("package", ["operators", "panels"])
def test_blender_code_imports_relatively(package):
    # An absolute import would find another extension's module, or none.
    own = {"xray_addon", "operators", "panels"}
    wrong = []
    for path in modules(package):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            absolute = isinstance(node, ast.ImportFrom) and not node.level
            if absolute and node.module and node.module.split(".")[0] in own:
                wrong.append(f"{path.name}: from {node.module}")
    assert not wrong


def test_the_root_imports_nothing_before_it_registers():
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    assert [type(node).__name__ for node in tree.body] == ["Expr", "FunctionDef", "FunctionDef"]
    assert [node.name for node in tree.body[1:]] == ["register", "unregister"]


def test_nothing_prints():
    talkers = [
        path.relative_to(ROOT).as_posix()
        for package in FORBIDDEN
        for path in modules(package)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert not talkers


CORE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocker())
before = set(sys.modules)

import numpy as np
import xray_addon as x

corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) - 0.5
faces = [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
         [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]]
surface = x.Surface(corners, faces)
camera = x.Camera.look_at((1.2, -1.5, 1.0), width=32, height=32)
xray = x.cast(surface, camera, layers=4)
xray.save(sys.argv[1])
again = x.XRay.load(sys.argv[1])
assert np.array_equal(again.index, xray.index)
mesh = x.reconstruct(again, camera)
assert len(mesh.faces) > 100
x.Generated(mesh, again, camera).save(sys.argv[1] + ".result.npz")
assert not {blocked} & {{name.split(".")[0] for name in sys.modules}}
"""


def test_the_core_runs_on_numpy_alone(tmp_path):
    blocked = repr({"scipy", "PIL", "bpy", "trimesh"} | HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", CORE.format(blocked=blocked), str(tmp_path / "a.npz")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
