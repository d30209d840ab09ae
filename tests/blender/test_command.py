"""`blender -c xray`: the same results as in Python, and exit codes that tell."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path

import bpy
import numpy as np
import pytest

SIZES = ("--views", "2", "--layers", "4", "--size", "32")


@pytest.fixture
def main(part):
    return part("operators.command").main


@pytest.fixture
def answer(main, capfd):
    """Run with --json; returns the exit code and what was answered."""

    def run(*arguments):
        capfd.readouterr()
        code = main([str(a) for a in arguments] + ["--json"])
        out, _ = capfd.readouterr()
        return code, json.loads(out)

    return run


@pytest.fixture
def meshes(xray, tmp_path):
    """A folder with one object in each of the known formats."""
    folder = tmp_path / "meshes"
    folder.mkdir()
    bpy.ops.mesh.primitive_ico_sphere_add()
    bpy.ops.export_scene.gltf(filepath=str(folder / "gltf.glb"))
    bpy.ops.wm.obj_export(filepath=str(folder / "obj.obj"))
    bpy.ops.wm.ply_export(filepath=str(folder / "ply.ply"))
    bpy.ops.wm.stl_export(filepath=str(folder / "stl.STL"))
    bpy.ops.export_scene.fbx(filepath=str(folder / "fbx.fbx"))
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "blend.blend"))
    (folder / "notes.txt").write_text("no mesh")
    return folder


def load(part, path):
    return part("xray_addon.xray").XRay.load(path)


def test_capture_a_folder_of_every_format(answer, meshes, part, tmp_path):
    code, result = answer("capture", meshes, tmp_path / "out", *SIZES)
    assert code == 0, result
    uids = ["blend", "fbx", "gltf", "obj", "ply", "stl"]
    assert sorted(item["uid"] for item in result["captured"]) == uids
    first = load(part, tmp_path / "out/xrays/blend/000.npz")
    for uid in uids[1:]:
        other = load(part, tmp_path / f"out/xrays/{uid}/000.npz")
        # Not the same to the bit: each format turns and scales the ball.
        assert len(other.index) == pytest.approx(len(first.index), rel=0.02), uid


def test_only_the_commands_own_lines_are_said(main, meshes, capfd, tmp_path):
    assert main(["capture", str(meshes), str(tmp_path), *SIZES]) == 0
    (tmp_path / "cut.glb").write_bytes((meshes / "gltf.glb").read_bytes()[:500])
    assert main(["capture", str(tmp_path / "cut.glb"), str(tmp_path), *SIZES]) == 1
    file = str(tmp_path / "xrays/ply/000.npz")
    assert main(["import", file, "--out", str(tmp_path / "ply.glb")]) == 0
    out, err = capfd.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("xray: cut: cut.glb cannot be imported (")
    assert line.endswith("). Check the file.")


def test_capture_equals_the_operator(main, meshes, part, tmp_path):
    assert main(["capture", str(meshes / "blend.blend"), str(tmp_path / "a"), *SIZES]) == 0
    bpy.ops.object.select_all(action="SELECT")
    bpy.ops.xray.capture(directory=str(tmp_path / "b"), views=2, layers=4, size=32)
    for view in ("000", "001"):
        a = load(part, tmp_path / f"a/xrays/blend/{view}.npz")
        b = load(part, tmp_path / f"b/xrays/Icosphere/{view}.npz")
        assert np.array_equal(a.index, b.index)
        assert np.array_equal(a.hit_depth, b.hit_depth)
        assert np.array_equal(a.hit_normal, b.hit_normal)
        assert np.array_equal(a.hit_color, b.hit_color)


def test_some_items_failed(answer, meshes, tmp_path):
    (meshes / "broken.glb").write_bytes(b"not a glb")
    code, result = answer("capture", meshes, tmp_path / "out", *SIZES)
    assert code == 1
    assert [item["uid"] for item in result["failed"]] == ["broken"]
    assert len(result["captured"]) == 6


def test_the_extension_stays_enabled(main, xray, meshes, tmp_path):
    assert main(["capture", str(meshes / "obj.obj"), str(tmp_path), *SIZES]) == 0
    assert xray.__name__ in bpy.context.preferences.addons


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("capture",),
        ("capture", "a.glb", "out", "--views", "many"),
        ("capture", "a.glb", "out", "--no-such-option"),
        ("generate", "a.png", "--device", "toaster"),
        ("import", "a.npz", "--as", "soup"),
    ],
)
def test_usage_errors(main, capsys, arguments):
    assert main(arguments) == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("capture", "nowhere.glb", "out"), "no file"),
        (("capture", "README.txt", "out"), "no known mesh file"),
        (("capture", ".", "out", "--views", "0"), "views must lie between"),
        (("import", "nowhere.npz"), "no file"),
        (("import", "nowhere.npz", "--out", "mesh.ply"), "Use a name that ends in"),
        (("generate", "nowhere.png"), "no image"),
        (("generate", "nowhere.png", "--out", "mesh.ply"), "Use a name that ends in"),
    ],
)
def test_wrong_values_are_usage_errors(
    main, fake_runtime, capsys, monkeypatch, tmp_path, arguments, reason
):
    monkeypatch.chdir(tmp_path)
    Path("README.txt").write_text("no mesh")
    assert main(arguments) == 2
    assert reason in capsys.readouterr().err


def test_an_empty_folder(answer, xray, tmp_path):
    code, result = answer("capture", tmp_path, tmp_path / "out")
    assert (code, result["error"]["code"]) == (2, "no_meshes")


@pytest.mark.parametrize("command", [(), ("capture",), ("generate",), ("import",)])
def test_help(main, capsys, command):
    assert main([*command, "--help"]) == 0
    assert "usage: blender -c xray" in capsys.readouterr().out


def test_generate_equals_the_function(answer, fake_runtime, part, tmp_path):
    image = tmp_path / "apple.png"
    part("xray_addon.files.png").write_png(image, np.full((8, 8, 3), 200, np.uint8))
    settings = part("xray_addon.settings").GenerateSettings(seed=2)
    made = part("operators.generate.generation").generate_mesh(image, settings)
    faces = len(made.data.polygons)
    code, result = answer("generate", image, "--seed", 2, "--out", tmp_path / "apple.blend")
    assert (code, result) == (0, {"out": str(tmp_path / "apple.blend"), "faces": faces})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["apple.blend", "apple.png"]
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "apple.blend"))
    (obj,) = bpy.data.objects
    assert (obj.name, len(obj.data.polygons)) == ("apple", faces)


def test_generate_writes_a_glb_with_its_colours(main, fake_runtime, part, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    part("xray_addon.files.png").write_png("apple.png", np.full((8, 8, 3), 200, np.uint8))
    assert main(["generate", "apple.png"]) == 0
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.ops.import_scene.gltf(filepath="apple.glb")
    attribute = bpy.context.object.data.color_attributes[0]
    colors = np.empty(len(attribute.data) * 4, np.float32)
    attribute.data.foreach_get("color_srgb", colors)
    assert np.ptp(colors.reshape(-1, 4)[:, :3]) > 0.9


@pytest.fixture
def apple(part, tmp_path):
    path = tmp_path / "apple.png"
    part("xray_addon.files.png").write_png(path, np.full((8, 8, 3), 200, np.uint8))
    return path


def test_generate_writes_an_stl_in_millimetres(answer, fake_runtime, apple, tmp_path):
    out = tmp_path / "apple.stl"
    code, result = answer("generate", apple, "--height", 0.25, "-o", out)
    assert (code, result["out"]) == (0, str(out))
    assert "no colours" in result["note"]
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.ops.wm.stl_import(filepath=str(out))
    assert bpy.context.object.dimensions.z == pytest.approx(250)
    assert len(bpy.context.object.data.polygons) == result["faces"]


@pytest.mark.parametrize("color", ["keep", "texture"])
def test_generate_writes_an_obj_with_quads_and_colours(
    answer, fake_runtime, apple, tmp_path, color
):
    out = tmp_path / "mesh.obj"
    code, result = answer(
        *("generate", apple, "--topology", "quads", "--target-faces", 400),
        *("--color", color, "--bake-size", 64, "-o", out),
    )
    assert code == 0, result
    files = ["mesh.mtl", "mesh.obj"] + (["mesh-1.png"] if color == "texture" else [])
    assert sorted(path.name for path in tmp_path.glob("mesh*")) == sorted(files)
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.ops.wm.obj_import(filepath=str(out))
    mesh = bpy.context.object.data
    assert {len(polygon.vertices) for polygon in mesh.polygons} == {4}
    if color == "texture":
        nodes = mesh.materials[0].node_tree.nodes
        (image,) = (node.image for node in nodes if node.type == "TEX_IMAGE")
        assert image.size[:] == (64, 64)
        assert image.has_data or image.pixels[0] >= 0
    else:
        values = np.empty(4 * len(mesh.vertices), np.float32)
        mesh.color_attributes[0].data.foreach_get("color_srgb", values)
        assert np.ptp(values.reshape(-1, 4)[:, :3]) > 0.8


def test_quads_in_a_glb_are_said_to_be_split(answer, fake_runtime, apple, tmp_path):
    code, result = answer("generate", apple, "--topology", "quads", "-o", tmp_path / "a.glb")
    assert code == 0
    assert "quads are split" in result["note"]


def test_generate_makes_a_mesh_of_every_image_of_a_folder(
    answer, capfd, fake_runtime, apple, tmp_path
):
    images, out = tmp_path / "images", tmp_path / "meshes"
    images.mkdir()
    for name in ("pear.png", "plum.png", "bad.png"):
        (images / name).write_bytes(apple.read_bytes())
    code, result = answer("generate", images, "-o", out, "--format", "stl")
    assert code == 1
    assert sorted(path.name for path in out.iterdir()) == ["pear.stl", "plum.stl"]
    assert [made["faces"] > 0 for made in result["made"]] == [True, True]
    assert [failure["code"] for failure in result["failed"]] == ["unreadable_image"]
    (images / "bad.png").unlink()
    assert answer("generate", images, "-o", out)[0] == 0
    assert (out / "pear.glb").is_file()


def test_layers_and_pictures_are_written_beside_the_mesh(
    answer, fake_runtime, part, apple, tmp_path
):
    layers, pictures, mesh = tmp_path / "apple.npz", tmp_path / "pictures", tmp_path / "apple.glb"
    code, result = answer("generate", apple, "-o", mesh, "--xray", layers)
    assert (code, result["xray"]) == (0, str(layers))
    made = part("operators.generate.generation").generate_mesh(
        apple, part("xray_addon.settings").GenerateSettings()
    )
    xray = part("xray_addon.xray").XRay.load(layers)
    assert xray.hits_per_layer.tolist() == list(made["xray_hits"])
    field = ("--generator", "renderdiffusion", "--pictures", pictures)
    code, result = answer("generate", *field, "-o", mesh)
    files = [str(pictures / name) for name in ("image.png", "orbit.png")]
    assert (code, result["pictures"]) == (0, files)
    read = part("xray_addon.files.png").read_png
    assert all(read(file).shape == (8, 8, 3) and (read(file) == 99).all() for file in files)
    images = tmp_path / "images"
    images.mkdir()
    (images / "pear.png").write_bytes(apple.read_bytes())
    code, result = answer("generate", images, *field, "-o", tmp_path / "meshes")
    assert (code, (pictures / "pear" / "orbit.png").is_file()) == (0, True)


def test_extras_that_cannot_be_written(answer, fake_runtime, apple, tmp_path):
    mesh, images = tmp_path / "apple.glb", tmp_path / "images"
    field = ("--generator", "renderdiffusion")
    both = ("--xray", tmp_path / "apple.npz", "--pictures", tmp_path / "pictures")
    code, result = answer("generate", *field, "-o", mesh, *both)
    assert (code, result["error"]["code"]) == (2, "bad_settings")
    assert result["error"]["message"] == "RenderDiffusion gives no X-Ray beside its mesh."
    assert not mesh.exists()
    code, result = answer("generate", *field, "-o", mesh, "--pictures", apple)
    assert result["error"]["code"] == "cannot_write"
    assert f"but {apple / 'image.png'} is not" in result["error"]["message"]
    assert mesh.is_file()
    images.mkdir()
    (images / "pear.png").write_bytes(apple.read_bytes())
    code, result = answer("generate", images, "-o", tmp_path, "--xray", tmp_path / "apple.npz")
    assert (code, result["error"]["code"]) == (2, "bad_settings")
    assert not (tmp_path / "pear.glb").exists()


def test_an_unknown_format_is_refused_before_the_work(answer, fake_runtime, apple, tmp_path):
    code, result = answer("generate", apple, "-o", tmp_path / "a.ply")
    assert (code, result["error"]["code"]) == (2, "unknown_format")
    assert ".stl" in result["error"]["remedy"]


def test_a_runtime_that_fails(answer, fake_runtime, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    code, result = answer("generate", tmp_path / "bad.png", "--out", tmp_path / "a.glb")
    assert (code, result["error"]["code"]) == (1, "unreadable_image")
    assert not (tmp_path / "a.glb").exists()


def test_no_runtime(answer, xray, tmp_path):
    addon = bpy.context.preferences.addons[xray.__name__]
    addon.preferences.runtime_folder = str(tmp_path / "nothing here")
    (tmp_path / "apple.png").write_bytes(b"")
    code, result = answer("generate", tmp_path / "apple.png", "--out", tmp_path / "a.glb")
    assert (code, result["error"]["code"]) == (3, "not_installed")


def test_ctrl_c(answer, fake_runtime, tmp_path):
    (tmp_path / "slow.png").write_bytes(b"")
    before = signal.getsignal(signal.SIGINT)
    timer = threading.Timer(1.5, signal.raise_signal, (signal.SIGINT,))
    timer.start()
    code, result = answer("generate", tmp_path / "slow.png", "--out", tmp_path / "a.glb")
    timer.join()
    assert (code, result["error"]["code"]) == (130, "cancelled")
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize("suffix", [".blend", ".glb"])
@pytest.mark.parametrize("form", ["mesh", "points", "layers"])
def test_import(answer, meshes, main, tmp_path, form, suffix):
    assert main(["capture", str(meshes / "obj.obj"), str(tmp_path / "out"), *SIZES]) == 0
    file = tmp_path / "out/xrays/obj/000.npz"
    out = tmp_path / f"{form}{suffix}"
    code, result = answer("import", file, "--as", form, "--out", out)
    assert (code, result["objects"]) == (0, 2 if form == "layers" else 1)
    if suffix == ".blend":
        bpy.ops.wm.open_mainfile(filepath=str(out))
    else:
        bpy.ops.wm.read_homefile(use_empty=True)
        bpy.ops.import_scene.gltf(filepath=str(out))
    found = [obj for obj in bpy.data.objects if obj.type == "MESH"]
    assert len(found) == result["objects"]
    assert all(len(obj.data.vertices) > 100 for obj in found)
    assert bool(found[0].data.polygons) == (form != "points")


def test_importing_a_file_that_is_none(answer, xray, tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"PK")
    code, result = answer("import", tmp_path / "bad.npz")
    assert (code, result["error"]["code"]) == (1, "bad_xray_file")
