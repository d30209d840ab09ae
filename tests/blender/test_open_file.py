"""`blender -b scene.blend -c xray ...`: what a command takes of the open file."""

from __future__ import annotations

import json

import bpy
import numpy as np
import pytest

CAPTURE = ("--views", "1", "--layers", "4", "--size", "32")
DATASET = (*CAPTURE, "--image", "none")


@pytest.fixture
def answer(part, capfd):
    """Run with --json; returns the exit code and what was answered."""

    def run(*arguments):
        capfd.readouterr()
        code = part("operators.command").main([str(a) for a in arguments] + ["--json"])
        out, err = capfd.readouterr()
        return code, json.loads(out) if out else err

    return run


@pytest.fixture
def scene(xray, tmp_path):
    """An open file. Props has a cube and a light, Small in it a ball, which is selected."""
    props, small = (bpy.data.collections.new(name) for name in ("Props", "Small"))
    bpy.context.scene.collection.children.link(props)
    props.children.link(small)
    bpy.ops.mesh.primitive_cube_add()
    cube = bpy.context.object
    bpy.ops.mesh.primitive_uv_sphere_add(location=(3, 0, 0))
    ball = bpy.context.object
    ball.name = "Ball of Wool"
    bpy.ops.object.light_add(location=(0, 0, 3))
    bpy.context.object.name = "Lamp"
    for obj, collection in ((cube, props), (ball, small), (bpy.context.object, props)):
        bpy.context.scene.collection.objects.unlink(obj)
        collection.objects.link(obj)
    bpy.ops.mesh.primitive_torus_add(location=(0, 5, 0))
    bpy.ops.object.select_all(action="DESELECT")
    ball.select_set(True)
    bpy.context.scene.frame_set(7)
    path = tmp_path / "scene.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(path))
    bpy.ops.wm.open_mainfile(filepath=str(path))
    return path


def uids(folder):
    return sorted(path.name for path in (folder / "xrays").iterdir())


def load(part, path):
    return part("xray_addon.xray").XRay.load(path)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--collection", "Props"), ["Ball_of_Wool", "Cube"]),
        (("--collection=Small",), ["Ball_of_Wool"]),
        (("--selected",), ["Ball_of_Wool"]),
        (("--objects", "Torus", "Ball of Wool"), ["Ball_of_Wool", "Torus"]),
        (("--obj", "Torus", "--size", "32"), ["Torus"]),
    ],
)
@pytest.mark.parametrize("command", ["capture", "dataset"])
def test_objects_of_the_open_file_each_become_an_item(
    answer, scene, tmp_path, command, options, found
):
    out = tmp_path / "out"
    sizes = CAPTURE if command == "capture" else DATASET
    code, result = answer(command, *sizes, out, *options)
    assert code == 0, result
    assert uids(out) == found
    if command == "capture":
        assert sorted(item["uid"] for item in result["captured"]) == found
    else:
        assert result["counts"]["done"] == len(found)


def test_a_captured_selection_is_the_operators(answer, scene, part, tmp_path):
    assert answer("capture", "--selected", tmp_path / "a", *CAPTURE)[0] == 0
    bpy.ops.xray.capture(directory=str(tmp_path / "b"), views=1, layers=4, size=32)
    a, b = (load(part, tmp_path / name / "xrays/Ball_of_Wool/000.npz") for name in "ab")
    for name in ("index", "hit_depth", "hit_normal", "hit_color"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name


def test_a_dataset_of_a_collection_is_the_operators(answer, scene, tmp_path):
    assert answer("dataset", "--collection", "Props", tmp_path / "a", *DATASET)[0] == 0
    bpy.ops.xray.dataset(
        source="collection",
        collection="Props",
        directory=str(tmp_path / "b"),
        views=1,
        layers=4,
        size=32,
        image="none",
    )
    a, b = (
        {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and "logs" not in path.parts
        }
        for folder in (tmp_path / "a", tmp_path / "b")
    )
    assert a == b
    assert json.loads((tmp_path / "a/settings.json").read_text())["items"]["frame"] == 7


def test_a_file_that_was_saved_in_edit_mode(answer, scene, part, tmp_path):
    assert answer("dataset", "--objects", "Cube", tmp_path / "a", *DATASET)[0] == 0
    bpy.context.view_layer.objects.active = bpy.data.objects["Cube"]
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.wm.save_as_mainfile(filepath=str(scene))
    bpy.ops.wm.open_mainfile(filepath=str(scene))
    assert bpy.context.mode == "EDIT_MESH"
    assert answer("dataset", "--objects", "Cube", tmp_path / "b", *DATASET)[0] == 0
    assert bpy.context.mode == "OBJECT"
    a, b = (load(part, tmp_path / name / "xrays/Cube/000.npz") for name in "ab")
    assert np.array_equal(a.hit_depth, b.hit_depth)


def test_the_folder_may_stand_first_or_last(answer, scene, tmp_path):
    for i, words in enumerate(
        (
            ("--objects", "Cube", "Torus", tmp_path / "0", *CAPTURE),
            (tmp_path / "1", "--objects", "Cube", "Torus", *CAPTURE),
            ("--objects", "Cube", "Torus", *CAPTURE, tmp_path / "2"),
        )
    ):
        code, result = answer("capture", *words)
        assert code == 0, result
        assert uids(tmp_path / str(i)) == ["Cube", "Torus"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--objects", "Cube", "Torus"), "required: OUT"),  # not a folder named Torus
        (("--objects", "Cube"), "required: OUT"),
        (("--selected",), "required: OUT"),
        (("--selected", "--collection", "Props", "out"), "not allowed with argument"),
        (("scene.blend", "out", "--selected"), "unrecognized arguments: out"),
    ],
)
def test_usage_errors(answer, scene, monkeypatch, tmp_path, options, reason):
    monkeypatch.chdir(tmp_path)
    code, err = answer("capture", *options)
    assert code == 2
    assert reason in err
    assert [path.name for path in tmp_path.iterdir()] == ["scene.blend"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            ("--collection", "Propz"),
            "scene.blend has no collection 'Propz'. It has 'Empty', 'Lights', 'Props'",
        ),
        (("--objects", "Cube", "Kube"), "scene.blend has no object 'Kube'. It has 'Ball of Wool'"),
        (("--objects", "Cube", "Lamp"), "These have no faces: Lamp."),
        (("--collection", "Empty"), "The collection 'Empty' has no objects in the view layer"),
        (("--collection", "Lights"), "These have no faces: Lamp."),
        (("--objects", "Moon"), "not in the view layer 'ViewLayer' of the scene 'Scene': Moon."),
        (("--selected",), "Nothing is selected in the view layer 'ViewLayer'"),
    ],
)
@pytest.mark.parametrize("command", ["capture", "dataset"])
def test_what_is_not_there_is_named(answer, scene, tmp_path, command, options, reason):
    bpy.ops.object.select_all(action="DESELECT")
    bpy.data.collections.new("Empty")
    lights = bpy.data.collections.new("Lights")
    lights.objects.link(bpy.data.objects["Lamp"])
    moon = bpy.data.objects.new("Moon", bpy.data.meshes.new("Moon"))
    bpy.data.scenes.new("Sky").collection.objects.link(moon)
    code, result = answer(command, tmp_path / "out", *options)
    assert (code, result["error"]["code"]) == (2, "no_source")
    assert reason in result["error"]["message"] + " " + result["error"]["remedy"]
    assert not (tmp_path / "out").exists()


def test_an_object_that_cannot_be_captured_costs_only_its_item(answer, scene, tmp_path):
    bare = bpy.data.objects.new("Bare", bpy.data.meshes.new("Bare"))
    bpy.data.collections["Props"].objects.link(bare)
    code, result = answer("capture", "--collection", "Props", tmp_path / "out", *CAPTURE)
    assert code == 1
    assert [item["uid"] for item in result["failed"]] == ["Bare"]
    assert uids(tmp_path / "out") == ["Ball_of_Wool", "Cube"]


def test_the_scenes_camera_sees_them_where_they_are(answer, scene, part, tmp_path):
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    camera.location = (3, 0, 10)  # above the ball, looking down
    bpy.context.scene.collection.objects.link(camera)
    bpy.context.scene.camera = camera
    options = ("--camera", "scene", "--layers", "2", "--size", "32")
    assert answer("capture", "--objects", "Ball of Wool", tmp_path, *options)[0] == 0
    seen = load(part, tmp_path / "xrays/Ball_of_Wool/000.npz")
    assert seen.hit_depth.min() == pytest.approx(9, abs=0.05)


@pytest.fixture
def references(scene, part, tmp_path):
    """Two image objects of the open file in the collection References; the file has one packed."""
    collection = bpy.data.collections.new("References")
    bpy.context.scene.collection.children.link(collection)
    write = part("xray_addon.files.png").write_png
    for name in ("pear", "fig"):
        write(tmp_path / f"{name}.png", np.full((8, 8, 3), 200, np.uint8))
        shown = bpy.data.objects.new(f"{name} reference", None)
        shown.empty_display_type = "IMAGE"
        shown.data = bpy.data.images.load(str(tmp_path / f"{name}.png"))
        collection.objects.link(shown)
    bpy.data.images["fig.png"].pack()
    (tmp_path / "fig.png").unlink()


def meshes_in(path):
    bpy.ops.wm.open_mainfile(filepath=str(path))
    return sorted(obj.name for obj in bpy.context.view_layer.objects if obj.type == "MESH")


def test_a_generated_mesh_is_added_to_the_open_file(
    answer, scene, references, fake_runtime, tmp_path
):
    before = scene.read_bytes()
    out = tmp_path / "more.blend"
    code, result = answer("generate", tmp_path / "pear.png", "--out", out)
    assert code == 0, result
    assert scene.read_bytes() == before
    assert meshes_in(out) == ["Ball of Wool", "Cube", "Torus", "pear"]
    assert bpy.context.scene.frame_current == 7


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--collection", "References"), ["fig", "pear"]),
        (("--objects", "fig reference"), ["fig"]),
        (("fig.png",), ["fig"]),  # the name of an image that is in the file only
    ],
)
def test_images_of_the_open_file_become_meshes(
    answer, scene, references, fake_runtime, monkeypatch, tmp_path, options, names
):
    monkeypatch.chdir(tmp_path)
    assert answer("generate", *options, "--out", "made.blend")[0] == 0
    assert meshes_in(tmp_path / "made.blend") == ["Ball of Wool", "Cube", "Torus", *names]
    xs = [bpy.data.objects[name].location.x for name in names]
    assert len(set(xs)) == len(names)  # side by side


def test_the_pictures_of_each_mesh_lie_in_a_folder_of_its_name(
    answer, scene, references, fake_runtime, tmp_path
):
    options = ("--collection", "References", "--out", tmp_path / "made.glb")
    field = ("--generator", "renderdiffusion", "--pictures", tmp_path / "pictures")
    code, result = answer("generate", *options, *field)
    folders = [str(tmp_path / "pictures" / name) for name in ("fig", "pear")]
    wanted = [f"{folder}/{name}.png" for folder in folders for name in ("image", "orbit")]
    assert (code, sorted(result["pictures"])) == (0, wanted)
    code, result = answer("generate", *options, "--xray", tmp_path / "layers.npz")
    assert (code, result["error"]["code"]) == (2, "bad_settings")


def test_only_the_generated_mesh_goes_into_a_glb(answer, scene, fake_runtime, references, tmp_path):
    out = tmp_path / "made.glb"
    assert answer("generate", "--selected", "--out", out)[0] == 2  # the ball shows no image
    bpy.data.objects["pear reference"].select_set(True)
    assert answer("generate", "--selected", "--out", out)[0] == 0
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=str(out))
    assert [obj.name for obj in bpy.data.objects] == ["pear"]


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (("--objects", "Cube"), "no_source", "These show no image: Cube."),
        (("--objects", "pear"), "no_source", "scene.blend has no object 'pear'."),
        (("pear.png", "--collection", "References"), "unused_input", "Leave out one of them."),
        (("nowhere.png",), "missing_file", "There is no image"),
    ],
)
def test_what_no_mesh_can_be_made_of_is_named(
    answer, scene, references, fake_runtime, monkeypatch, tmp_path, options, code, reason
):
    monkeypatch.chdir(tmp_path)
    exit_code, result = answer("generate", *options)
    assert (exit_code, result["error"]["code"]) == (2, code)
    assert reason in result["error"]["message"] + result["error"]["remedy"]
    assert not list(tmp_path.glob("*.glb"))
