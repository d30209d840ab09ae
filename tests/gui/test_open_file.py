"""`blender -b scene.blend -c xray ...` and the operators there, with Blender's own executable."""

from __future__ import annotations

import json
import shutil

import pytest
import rig

SMALL = ("--views", "1", "--layers", "4", "--size", "32")
# A collection with a cube and a lamp, a selected ball elsewhere, another scene, and a reference.
BUILD = """
import bpy
bpy.ops.wm.read_factory_settings(use_empty=True)
props = bpy.data.collections.new("Props")
bpy.context.scene.collection.children.link(props)
bpy.context.view_layer.active_layer_collection = (
    bpy.context.view_layer.layer_collection.children["Props"])
bpy.ops.mesh.primitive_cube_add()
bpy.ops.object.light_add()
bpy.context.view_layer.active_layer_collection = bpy.context.view_layer.layer_collection
bpy.ops.mesh.primitive_uv_sphere_add(location=(4, 0, 0))
bpy.context.object.name = "Ball of Wool"
reference = bpy.data.objects.new("Reference", None)
reference.empty_display_type, reference.data = "IMAGE", bpy.data.images.load("{image}")
bpy.context.scene.collection.objects.link(reference)
bpy.ops.scene.new(type="EMPTY")
bpy.context.scene.name = "Sky"
bpy.ops.mesh.primitive_torus_add()
bpy.context.window.scene = bpy.data.scenes["Scene"]
bpy.ops.wm.save_as_mainfile(filepath="{scene}")
"""


# Has the real server with a generator that makes balls, as in the tests with a window.
FAKE = f"""
import sys
service = sys.modules["{rig.MODULE}.operators.runtime.service"]
service.command = service.Command("{rig.ROOT / ".venv/runtime/venv/bin/python"}",
                                  ("{rig.ROOT / "tests/blender/fake_server.py"}",))
"""


@pytest.fixture(scope="module")
def scene(screen, installed):
    """A saved file; see `BUILD`."""
    image = rig.OUT / "reference.png"
    shutil.copy(rig.ROOT / "tests" / "demo" / "toadstool.png", image)
    path = rig.OUT / "scene.blend"
    done = screen.run("blender", "-b", "--python-expr", BUILD.format(image=image, scene=path))
    assert path.exists(), done.stdout + done.stderr
    return path


@pytest.fixture
def blender(screen, installed, scene):
    """Runs Blender in the background on the scene; the exit code, the answer, what else it said."""

    def run(*arguments):
        done = screen.run(
            "blender",
            "-q",
            "-b",
            scene,
            "--python-expr",
            FAKE,
            *arguments,
            BLENDER_USER_RESOURCES=str(installed),
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def answer(blender):
    """Runs a command with --json; the exit code and the answer."""

    def run(*arguments):
        code, out, _ = blender("-c", "xray", *arguments, "--json")
        return code, json.loads(out)

    return run


@pytest.fixture
def out(request):
    """A folder for what a test writes."""
    folder = rig.OUT / request.node.name
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def uids(folder):
    return sorted(path.name for path in (folder / "xrays").iterdir())


@pytest.mark.parametrize("command", ["capture", "dataset"])
def test_a_collection_the_selection_and_names(answer, out, command):
    options = SMALL if command == "capture" else (*SMALL, "--image", "none")
    for words, found in (
        (("--collection", "Props"), ["Cube"]),
        (("--selected",), ["Ball_of_Wool"]),
        (("--objects", "Cube", "Ball of Wool"), ["Ball_of_Wool", "Cube"]),
    ):
        folder = out / words[0].strip("-")
        code, result = answer(command, *words, folder, *options)
        assert code == 0, result
        assert uids(folder) == found


def test_another_scene_of_the_file(blender, out):
    code, _, err = blender("-c", "xray", "capture", "--objects", "Torus", out, *SMALL)
    assert code == 2
    assert "not in the view layer 'ViewLayer' of the scene 'Scene': Torus." in err
    code, _, err = blender("-S", "Sky", "-c", "xray", "capture", "--objects", "Torus", out, *SMALL)
    assert code == 0, err
    assert uids(out) == ["Torus"]


def test_what_is_not_there_is_named(answer, out):
    code, result = answer("capture", "--collection", "Propz", out)
    assert (code, result["error"]["code"]) == (2, "no_source")
    assert result["error"]["message"] == "scene.blend has no collection 'Propz'."
    assert not out.exists()


def test_a_reference_becomes_a_mesh_in_the_scene(answer, blender, scene, out):
    out.mkdir()
    made = out / "more.blend"
    before = scene.read_bytes()
    code, result = answer("generate", "--objects", "Reference", "--out", made)
    assert code == 0, result
    assert scene.read_bytes() == before
    code, told, err = blender(
        "--python-expr",
        f"import bpy; bpy.ops.wm.open_mainfile(filepath={str(made)!r}); "
        "print(sorted(o.name for o in bpy.context.scene.objects if o.type == 'MESH'))",
    )
    assert "['Ball of Wool', 'Cube', 'reference']" in told, told + err


def test_the_operators_run_to_their_end(blender, out):
    code, told, err = blender(
        "--python-exit-code",
        "1",
        "--python-expr",
        f"""
import bpy
small = dict(views=1, layers=4, size=32)
bpy.ops.xray.capture(directory={str(out / "capture")!r}, **small)
bpy.ops.xray.dataset(source="collection", collection="Props", image="none",
                     directory={str(out / "dataset")!r}, **small)
bpy.ops.xray.generate(image="reference.png")
assert "reference" in bpy.context.scene.objects
""",
    )
    assert code == 0, told + err
    assert uids(out / "capture") == ["Ball_of_Wool"]
    assert uids(out / "dataset") == ["Cube"]


def test_an_operator_that_fails_can_end_blender_with_an_exit_code(blender, out):
    code, told, err = blender(
        "--python-exit-code",
        "9",
        "--python-expr",
        "import bpy; bpy.ops.xray.dataset(source='collection', collection='Propz', "
        f"directory={str(out)!r})",
    )
    assert code == 9
    assert "There is no collection 'Propz'" in told + err
