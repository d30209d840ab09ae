"""The main job with nothing faked: an image becomes a mesh through the real runtime's process.

Skipped where the runtime is not installed (`make test` installs it).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

bpy = pytest.importorskip("bpy")
ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "tests/demo/toadstool.png"


@pytest.fixture
def runtime(part):
    """The service over the installed runtime; its process ends with the test."""
    service = part("operators.runtime.service")
    if not service.is_available():
        pytest.skip("the model runtime is not installed here; `make setup` does it")
    yield service
    service.stop()


def positions(obj) -> np.ndarray:
    flat = np.empty(len(obj.data.vertices) * 3, np.float32)
    obj.data.vertices.foreach_get("co", flat)
    return flat.reshape(-1, 3)


def test_panel_command_line_and_runtime_give_the_same_mesh(runtime, part, tmp_path, capfd):
    # The panel's button runs the operator; without a window it blocks.
    assert bpy.ops.xray.generate(filepath=str(IMAGE)) == {"FINISHED"}
    by_operator = bpy.context.object
    assert by_operator.name == "toadstool"
    vertices = positions(by_operator)
    faces = len(by_operator.data.polygons)
    assert len(vertices) > 1000
    nodes = by_operator.data.materials[0].node_tree.nodes
    shader = next(node for node in nodes if node.type == "BSDF_PRINCIPLED")
    texture = shader.inputs["Base Color"].links[0].from_node.image
    assert min(texture.size) >= 512
    # Upright, at the cursor, about the frame's size.
    size = vertices.max(axis=0) - vertices.min(axis=0)
    assert 0.5 < size[2] < 2

    out, layers = tmp_path / "by-blender.blend", tmp_path / "by-blender.npz"
    words = ["generate", str(IMAGE), "--out", str(out), "--xray", str(layers), "--json"]
    assert part("operators.command").main(words) == 0
    answer = json.loads(capfd.readouterr().out.strip().splitlines()[-1])
    assert answer["faces"] == faces
    with bpy.data.libraries.load(str(out)) as (found, wanted):
        wanted.objects = found.objects
    (by_command,) = wanted.objects
    np.testing.assert_array_equal(positions(by_command), vertices)

    python = runtime.environment().python
    done = subprocess.run(
        [python, "-m", "runtime", *words[:2], "-o", "a.glb", "--xray", "a.npz", "--json"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    by_runtime = json.loads(done.stdout)
    assert (by_runtime["vertices"], by_runtime["faces"]) == (len(vertices), faces)
    load = part("xray_addon.xray").XRay.load  # the bytes differ where libdeflate is missing
    ours, theirs = load(layers), load(tmp_path / "a.npz")
    assert ours.shape == theirs.shape
    for name in ("index", "hit_depth", "hit_normal", "hit_color"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_torch_stays_out_of_blenders_process(runtime, xray):
    import sys

    bpy.ops.xray.generate(filepath=str(IMAGE))
    assert "torch" not in sys.modules
    assert runtime.is_running()
    assert bpy.ops.xray.runtime_stop() == {"FINISHED"}
    assert not runtime.is_running()
