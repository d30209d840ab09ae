"""Datasets in Blender: every format, the same files every way, complete or absent."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import bpy
import numpy as np
import pytest


@pytest.fixture
def making(part):
    return part("operators.dataset.capture")


@pytest.fixture
def core(part):
    """All that a dataset on disk consists of."""
    modules = ("manifest", "recipe", "result", "store")
    found = [vars(part(f"xray_addon.dataset.{module}")) for module in modules]
    return SimpleNamespace(**{name: value for names in found for name, value in names.items()})


@pytest.fixture
def settings(part):
    return lambda **values: part("xray_addon.settings").DatasetSettings(
        **{"views": 2, "layers": 4, "size": 32, "image": "cast", "image_size": 64, **values}
    )


def files(folder, times=False) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and (times or p.relative_to(folder).parts[0] != "logs")
    }


@pytest.fixture
def meshes(xray, tmp_path):
    """A folder with a ball in each of the formats that this Blender writes."""
    folder = tmp_path / "meshes"
    folder.mkdir()
    bpy.ops.mesh.primitive_ico_sphere_add()
    bpy.ops.export_scene.gltf(filepath=str(folder / "glb.glb"))
    bpy.ops.export_scene.gltf(
        filepath=str(folder / "gltf.gltf"), export_format="GLTF_SEPARATE", export_yup=True
    )
    bpy.ops.wm.obj_export(filepath=str(folder / "obj.obj"))
    bpy.ops.wm.ply_export(filepath=str(folder / "ply.ply"))
    bpy.ops.wm.stl_export(filepath=str(folder / "stl.STL"))
    bpy.ops.export_scene.fbx(filepath=str(folder / "fbx.fbx"))
    for suffix in ("usda", "usdc", "usdz"):
        bpy.ops.wm.usd_export(filepath=str(folder / f"{suffix}.{suffix}"))
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "blend.blend"))
    (folder / "notes.txt").write_text("no mesh")
    return folder


def test_every_format(making, core, settings, meshes, tmp_path):
    items = core.read_source(meshes)
    run = making.make_dataset(items, tmp_path / "out", settings())
    uids = ("blend", "fbx", "glb", "gltf", "obj", "ply", "stl", "usda", "usdc", "usdz")
    ended = {result.uid: (result.status, result.reason) for result in run.results}
    assert ended == dict.fromkeys(uids, ("done", ""))
    hits = [result.hits for result in run.results]
    assert min(hits) > 0.8 * max(hits)
    assert run.report.captured == 10


def test_what_lies_where(making, core, settings, meshes, tmp_path):
    (item,) = core.read_source(meshes / "glb.glb")
    run = making.make_dataset([item], tmp_path / "out", settings(ids=True))
    (result,) = run.results
    assert result.status == "done", result
    assert set(files(tmp_path / "out", times=True)) == {
        "ids/glb/000.npz",
        "ids/glb/001.npz",
        "images/glb/000.png",
        "images/glb/001.png",
        "images/glb/transforms.json",
        "logs/glb.json",
        "metadata.jsonl",
        "metadata/glb.json",
        "report.json",
        "report.md",
        "settings.json",
        "xrays/glb/000.npz",
        "xrays/glb/001.npz",
    }
    row = json.loads((tmp_path / "out/metadata/glb.json").read_text())
    assert row["source"] == "glb.glb"
    assert row["source_sha256"] == core.file_hash(meshes / "glb.glb")
    assert row["triangles"] == 80
    assert sum(sum(view["hits"]) for view in row["views"]) == result.hits
    assert min(view["iou"] for view in row["views"]) > 0.9
    assert str(tmp_path) not in json.dumps(row)


def load(part, path):
    return part("xray_addon.xray").XRay.load(path)


def test_a_source_edited_at_the_same_size_is_made_again(
    making, core, settings, meshes, part, tmp_path
):
    path, out = meshes / "obj.obj", tmp_path / "out"
    items = core.read_source(path)
    options = settings(min_iou=0.0)
    making.make_dataset(items, out, options)
    before = load(part, out / "xrays/obj/000.npz").hit_depth
    lines = path.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("v "))
    lines[first] = lines[first].replace("0", "9", 1)  # moves a corner
    size = path.stat().st_size
    path.write_text("\n".join(lines) + "\n")
    assert path.stat().st_size == size
    assert making.make_dataset(items, out, options).count("done") == 1
    assert not np.array_equal(before, load(part, out / "xrays/obj/000.npz").hit_depth)
    os.utime(path)  # another time, the same content
    assert making.make_dataset(items, out, options).count("exists") == 1


def test_done_again_it_is_there_already(making, core, settings, meshes, part, tmp_path):
    items = core.read_source(meshes)[:2]
    making.make_dataset(items, tmp_path / "out", settings())
    before = files(tmp_path / "out")
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.npz")}
    run = making.make_dataset(items, tmp_path / "out", settings())
    assert [result.status for result in run.results] == ["exists", "exists"]
    assert files(tmp_path / "out") == before
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.npz")} == stamps
    with pytest.raises(part("xray_addon.errors").XRayError, match="views is 2 there and 1 here"):
        making.make_dataset(items, tmp_path / "out", settings(views=1))
    assert files(tmp_path / "out") == before
    again = making.make_dataset(items, tmp_path / "out", settings(views=1), replace=True)
    assert [result.views for result in again.results] == [1, 1]
    assert not (tmp_path / "out/xrays/blend/001.npz").exists()


def test_ids_say_which_object_material_and_face(making, core, settings, part, xray, tmp_path):
    for x, name in ((0, "Left"), (3, "Right")):
        bpy.ops.mesh.primitive_cube_add(location=(x, 0, 0))
        bpy.context.object.name = name
        bpy.context.object.data.materials.append(bpy.data.materials.new(f"Paint {name}"))
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "two.blend"))
    out = tmp_path / "out"
    making.make_dataset(
        core.read_source(tmp_path / "two.blend"),
        out,
        settings(ids=True, cameras="turntable", elevation=0.0, views=4, image="none"),
    )
    row = json.loads((out / "metadata/two.json").read_text())
    assert row["objects"] == ["Left", "Right"]
    assert row["materials"] == ["Paint Left", "Paint Right"]
    xray = load(part, out / "xrays/two/000.npz")  # from the front: left is left
    with np.load(out / "ids/two/000.npz") as ids:
        column = xray.index % 32
        assert np.array_equal(ids["object"] == 1, column > 15)
        assert np.array_equal(ids["material"], ids["object"])
        assert set(ids["face"].tolist()) <= set(range(6))
        normal = np.abs(xray.hit_normal[:, 2]) > 0.9
        faces = ids["face"][normal & (ids["object"] == 0)]
        assert len(set(faces.tolist())) == 2  # front and back
    assert not (out / "images/two/000.png").exists()
    assert (out / "metadata.jsonl").read_text() == ""


def test_the_scene_is_evaluated_at_the_frame_or_at_rest(
    making, core, settings, part, xray, tmp_path
):
    bpy.ops.mesh.primitive_cube_add()
    cube = bpy.context.object
    cube.modifiers.new("Many", "ARRAY").count = 3
    armature = bpy.data.armatures.new("Bones")
    rig = bpy.data.objects.new("Rig", armature)
    bpy.context.collection.objects.link(rig)
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode="EDIT")
    armature.edit_bones.new("Bone").tail = (0, 0, 1)
    bpy.ops.object.mode_set(mode="OBJECT")
    bpy.ops.mesh.primitive_cube_add()
    moved = bpy.context.object
    moved.parent, moved.parent_type, moved.parent_bone = rig, "BONE", "Bone"
    bone = rig.pose.bones["Bone"]
    for frame, height in ((1, 5.0), (20, 9.0)):
        bone.location = (0, height, 0)
        bone.keyframe_insert("location", frame=frame)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "rig.blend"))
    item = core.read_source(tmp_path / "rig.blend")
    common = {"normalize": "none", "cameras": "turntable", "elevation": 0.0, "image": "none"}
    heights = {}
    for name, values in {
        "first": {"frame": 1},
        "later": {"frame": 20},
        "rest": {"pose": "rest"},
    }.items():
        out = tmp_path / name
        making.make_dataset(item, out, settings(**common, **values))
        cameras = part("xray_addon.files.transforms").read_transforms(
            out / "images/rig/transforms.json", 32, 32
        )
        points = load(part, out / "xrays/rig/000.npz").points(cameras["000"]).positions
        heights[name] = float(np.ptp(points[:, 2]))
        assert np.ptp(points[:, 0]) == pytest.approx(6, abs=0.5)  # three cubes in a row
    assert heights["rest"] < heights["first"] < heights["later"]


def test_the_files_own_camera(making, core, settings, part, cube, tmp_path):
    data = bpy.data.cameras.new("Camera")
    camera = bpy.data.objects.new("Camera", data)
    bpy.context.collection.objects.link(camera)
    camera.location, data.shift_x = (0, 0, 10), 0.1
    cube.location = (1, 0, 0)
    bpy.context.scene.camera = camera
    render = bpy.context.scene.render
    render.resolution_x, render.resolution_y = 200, 100
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    item = core.read_source(tmp_path / "a.blend")
    run = making.make_dataset(item, tmp_path / "out", settings(cameras="scene"))
    assert run.results[0].reason == ""
    xray = load(part, tmp_path / "out/xrays/a/000.npz")
    assert xray.shape == (4, 16, 32)
    assert xray.hit_depth.min() == pytest.approx(9 / 2, abs=0.1)  # in longest sides
    frame = json.loads((tmp_path / "out/images/a/transforms.json").read_text())["frames"][0]
    assert frame["cx"] == pytest.approx(16 - 0.1 * 32)
    (view,) = json.loads((tmp_path / "out/metadata/a.json").read_text())["views"]
    assert view["iou"] > 0.9


@pytest.mark.parametrize("kind", ["ORTHO", "PANO"])
def test_cameras_that_are_no_pinholes_are_refused(making, core, settings, cube, tmp_path, kind):
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    camera.data.type = kind
    bpy.context.collection.objects.link(camera)
    bpy.context.scene.camera = camera
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    item = core.read_source(tmp_path / "a.blend")
    run = making.make_dataset(item, tmp_path / "out", settings(cameras="scene"))
    assert (run.results[0].status, run.results[0].code) == ("rejected", "unsupported_camera")
    assert {"ORTHO": "orthographic", "PANO": "panoramic"}[kind] in run.results[0].reason


def test_cycles_agrees_with_the_first_layer(making, core, settings, meshes, tmp_path):
    item = core.read_source(meshes / "glb.glb")
    run = making.make_dataset(
        item,
        tmp_path / "out",
        settings(image="cycles", samples=4, denoise=False, views=1, size=64, image_size=128),
    )
    assert run.results[0].reason == ""
    (view,) = json.loads((tmp_path / "out/metadata/glb.json").read_text())["views"]
    assert view["iou"] > 0.95


def test_gates_reject_and_say_why(making, core, settings, meshes, tmp_path):
    item = core.read_source(meshes / "glb.glb")
    run = making.make_dataset(item, tmp_path / "out", settings(min_iou=1.0))
    assert (run.results[0].status, run.results[0].code) == ("rejected", "low_iou")
    assert run.report.gates["low_iou"] == {"counted": 1, "refused": 1}
    assert not (tmp_path / "out/xrays").exists()
    again = making.make_dataset(item, tmp_path / "out", settings(min_iou=1.0))
    assert (again.results[0].status, again.results[0].log) == ("rejected", "")
    run = making.make_dataset(item, tmp_path / "out", settings(layers=1))
    assert run.results[0].status == "done", "nothing was captured before with other settings"
    assert (run.results[0].status, run.report.gates["dropped_hits"]["counted"]) == ("done", 1)


def test_materials_that_compute_are_baked_or_skipped(making, core, settings, part, cube, tmp_path):
    material = bpy.data.materials.new("Checker")
    tree = part("operators.convert.materials").with_nodes(material)
    checker = tree.nodes.new("ShaderNodeTexChecker")
    checker.inputs["Color1"].default_value = (1, 0, 0, 1)
    checker.inputs["Color2"].default_value = (0, 0, 1, 1)
    shader = next(node for node in tree.nodes if node.type == "BSDF_PRINCIPLED")
    tree.links.new(checker.outputs["Color"], shader.inputs["Base Color"])
    cube.data.materials.append(material)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    item = core.read_source(tmp_path / "a.blend")
    run = making.make_dataset(item, tmp_path / "skip", settings(materials="skip"))
    assert (run.results[0].status, run.results[0].code) == ("rejected", "needs_baking")
    assert "Checker" in run.results[0].reason
    run = making.make_dataset(item, tmp_path / "bake", settings(bake_size=256))
    assert run.results[0].reason == ""
    color = load(part, tmp_path / "bake/xrays/a/000.npz").hit_color
    red, blue = (np.abs(color - c).max(axis=1) < 0.05 for c in ((1, 0, 0), (0, 0, 1)))
    assert red.mean() > 0.3
    assert blue.mean() > 0.3


def test_a_missing_image_is_named_and_magenta_as_in_pictures(
    making, core, settings, part, cube, tmp_path
):
    image = bpy.data.images.new("Wood", 4, 4)
    image.filepath_raw, image.file_format = str(tmp_path / "wood.png"), "PNG"
    image.save()
    material = bpy.data.materials.new("Planks")
    tree = part("operators.convert.materials").with_nodes(material)
    node = tree.nodes.new("ShaderNodeTexImage")
    node.image = image
    shader = next(node for node in tree.nodes if node.type == "BSDF_PRINCIPLED")
    tree.links.new(node.outputs["Color"], shader.inputs["Base Color"])
    cube.data.materials.append(material)
    bpy.ops.export_scene.gltf(filepath=str(tmp_path / "a.gltf"), export_format="GLTF_SEPARATE")
    for path in tmp_path.glob("*.png"):
        path.unlink()
    item, out = core.read_source(tmp_path / "a.gltf"), tmp_path / "out"
    run = making.make_dataset(item, out, settings(image="cycles", samples=4, denoise=False))
    assert run.results[0].reason == ""
    row = json.loads((out / "metadata/a.json").read_text())
    assert row["missing_textures"] == ["wood.png"]
    assert run.report.gates["missing_texture"] == {"counted": 1, "refused": 0}
    messages = json.loads((out / "logs/a.json").read_text())["messages"]
    assert "There is no image file wood.png." in messages
    assert any("ERROR" in line and "wood.png" in line for line in messages)  # the importer's own
    xray = load(part, out / "xrays/a/000.npz")
    assert np.allclose(xray.hit_color, (1, 0, 1), atol=0.003)
    picture = part("operators.convert.images").read_image(out / "images/a/000.png")
    red, green, blue, alpha = np.moveaxis(picture, 2, 0)
    assert (red[alpha > 250] > 100).all()
    assert (blue[alpha > 250] > 100).all()
    assert (green[alpha > 250] < red[alpha > 250]).all(), "but for what shines"
    assert np.median(green[alpha > 250]) < 100


def test_all_missing_images_of_a_baked_material_are_named(
    making, core, settings, part, cube, capfd, tmp_path
):
    material = bpy.data.materials.new("Planks")
    tree = part("operators.convert.materials").with_nodes(material)
    mix = tree.nodes.new("ShaderNodeMixRGB")
    mix.blend_type, mix.inputs[0].default_value = "DIFFERENCE", 1.0
    for name, socket in (("wood", mix.inputs[1]), ("moss", mix.inputs[2])):
        image = bpy.data.images.new(name, 4, 4)
        image.filepath_raw, image.file_format = str(tmp_path / f"{name}.png"), "PNG"
        image.save()
        node = tree.nodes.new("ShaderNodeTexImage")
        node.image = bpy.data.images.load(str(tmp_path / f"{name}.png"))
        tree.links.new(node.outputs["Color"], socket)
    shader = next(node for node in tree.nodes if node.type == "BSDF_PRINCIPLED")
    tree.links.new(mix.outputs["Color"], shader.inputs["Base Color"])
    cube.data.materials.append(material)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    for path in tmp_path.glob("*.png"):
        path.unlink()
    item, out = core.read_source(tmp_path / "a.blend"), tmp_path / "out"
    capfd.readouterr()
    run = making.make_dataset(item, out, settings(image="none", bake_size=256))
    assert capfd.readouterr() == ("", "")
    assert (run.results[0].status, run.results[0].reason) == ("done", "")
    row = json.loads((out / "metadata/a.json").read_text())
    assert row["missing_textures"] == ["moss.png", "wood.png"]
    assert run.report.missing_textures == {"a": ["moss.png", "wood.png"]}
    assert "\n| a | moss.png, wood.png |\n" in (out / "report.md").read_text()
    # Magenta from magenta is black, as Cycles bakes it.
    assert not load(part, out / "xrays/a/000.npz").hit_color.any()


def test_every_torture_file_is_captured_or_refused_by_name(
    making, core, settings, assets, xray, tmp_path
):
    items = core.read_source(assets / "torture")
    run = making.make_dataset(items, tmp_path, settings(size=48, views=1, layers=16, min_iou=0.0))
    assert len(run.results) == len(items) > 70
    refused = {r.uid: r.code for r in run.results if r.status != "done"}
    assert set(refused.values()) <= {"few_hits", "no_faces", "unknown_format"}
    foreign = {item.uid for item in items if item.source.endswith(".off")}
    assert {uid for uid, code in refused.items() if code == "unknown_format"} == foreign
    assert run.report.captured >= len(items) - len(foreign) - 6


STRANGE = [
    "my chair.glb",
    'a "quoted" one.glb',
    "it's.glb",
    "Stühle/椅子 🪑.glb",
    "case.glb",
    "CASE.glb",
    "dots..and...more.glb",
    "n" * 240 + ".glb",
]


def test_strange_names(making, core, settings, meshes, tmp_path):
    folder = tmp_path / "strange names"
    for name in STRANGE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((meshes / "glb.glb").read_bytes())
    items = core.read_source(folder)
    run = making.make_dataset(items, tmp_path / "out put", settings(views=1))
    assert [(r.uid, r.reason) for r in run.results] == [(item.uid, "") for item in items]
    assert len(list((tmp_path / "out put/xrays").iterdir())) == len(STRANGE)


def test_a_read_only_folder_and_a_full_disk_stop_the_run(
    making, core, settings, meshes, part, monkeypatch, tmp_path
):
    error = part("xray_addon.errors").XRayError
    items = core.read_source(meshes)[:3]
    (tmp_path / "file").write_text("")
    with pytest.raises(error, match="cannot be written"):
        making.make_dataset(items, tmp_path / "file", settings())

    def full(path, picture, deflater):
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "out"
    making.make_dataset(items[:1], out, settings())
    before = files(out)
    with monkeypatch.context() as patch:
        patch.setattr(making, "write_png", full)
        with pytest.raises(error, match="No space left"):
            making.make_dataset(items, out, settings())
    assert files(out) == before
    run = making.make_dataset(items, out, settings())
    assert [result.status for result in run.results] == ["exists", "done", "done"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_without_permission(making, core, settings, meshes, part, tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(part("xray_addon.errors").XRayError, match="cannot be written"):
        making.make_dataset(core.read_source(meshes), tmp_path / "out", settings())


def test_a_cancelled_run_leaves_no_half_item(making, core, settings, meshes, part, tmp_path):
    progress = part("xray_addon.progress")
    out = tmp_path / "out"
    steps = making.dataset_steps(core.read_source(meshes)[:2], out, settings(views=5))
    for _ in range(4):
        next(steps)
    with pytest.raises(progress.Cancelled):
        steps.throw(progress.Cancelled())
    assert list(files(out, times=True)) == ["settings.json"]
    assert not (out / ".work").exists()


def test_a_bug_costs_one_item(making, core, settings, meshes, monkeypatch, tmp_path):
    items = core.read_source(meshes)[:2]

    def load(item):
        if item.uid == items[0].uid:
            raise KeyError("bug")
        return making.open_item(item)

    run = part_run(making, items, tmp_path, settings(), load)
    assert [(r.status, r.code) for r in run.results] == [("failed", "internal"), ("done", "")]
    assert "KeyError" in json.loads((tmp_path / f"logs/{items[0].uid}.json").read_text())["detail"]


def part_run(making, items, folder, settings, load):
    steps = making.dataset_steps(items, folder, settings, load)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


# --- processes: the command, workers, kills ---

# Without numba: compiling takes longer than all else here. The importer ends the process over some
# files, as Blender's do, in each version over others.
CHILD = """
import os, signal, sys
sys.modules["numba"] = None
import bpy
module = "bl_ext.user_default.xray"
bpy.ops.preferences.addon_enable(module=module)
from bl_ext.user_default.xray.operators.command import main
from bl_ext.user_default.xray.operators.convert import mesh_files

def import_ply(filepath):
    with open(filepath, "rb") as stream:
        if b"poison" in stream.read():
            os.kill(os.getpid(), signal.SIGSEGV)
    bpy.ops.wm.ply_import(filepath=filepath)

operator = mesh_files._operator
mesh_files._operator = lambda name: import_ply if name == "wm.ply_import" else operator(name)
code = main(sys.argv[1:])
sys.stdout.flush()
os._exit(code)
"""
SMALL = ("--views=2", "--layers=4", "--size=32", "--image=cast", "--image-size=64")


def child_command(*arguments):
    return [sys.executable, "-c", CHILD, *map(str, arguments)]


def answers(text):
    """What the command answered; from 5.3 on Blender itself says a line when it starts."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def child(*arguments, **keywords):
    return subprocess.Popen(
        child_command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        **keywords,
    )


@pytest.fixture
def many(meshes, tmp_path):
    """A folder of a dozen small files."""
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(12):
        (folder / f"item{i:02d}.glb").write_bytes((meshes / "glb.glb").read_bytes())
    return folder


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_killed_and_resumed_it_ends_with_the_same_bytes(core, part, settings, many, tmp_path):
    # XRAY_KILLS=50 for the long version.
    kills, moments = int(os.environ.get("XRAY_KILLS", "3")), random.Random(5)
    whole = child("dataset", many, tmp_path / "whole", *SMALL)
    started = time.monotonic()
    while not (tmp_path / "whole/metadata").exists():
        time.sleep(0.02)
    start = time.monotonic() - started
    assert whole.wait() == 0
    took = time.monotonic() - started - start
    whole.communicate()
    killed = 0
    for _ in range(kills):
        out = tmp_path / "killed"
        process = child("dataset", many, out, *SMALL)
        known = len(list(out.glob("logs/*.json")))
        while len(list(out.glob("logs/*.json"))) <= known and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, took / kills))
        killed += process.poll() is None
        process.kill()
        process.communicate()
        digest = core.Recipe.of(settings()).digest
        rows = [path.stem for path in out.glob("metadata/*.json")]
        for item in core.read_source(many):
            if item.uid in rows:
                assert core.find(out, item, digest), "its row is there, so all of it is"
    last = child("dataset", many, tmp_path / "killed", *SMALL)
    last.communicate()
    assert last.returncode == 0
    assert killed > 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert not (tmp_path / "killed/.work").exists()


POISON = b"ply\ncomment poison\n"  # see `CHILD`


@pytest.mark.skipif(os.name == "nt", reason="no signal says there how a process ended")
def test_a_file_that_crashes_blender_is_refused_and_the_run_goes_on(many, tmp_path):
    (many / "item05.glb").with_suffix(".ply").write_bytes(POISON)
    out = tmp_path / "out"
    first = child("dataset", many, out, *SMALL)
    first.communicate()
    assert first.returncode < 0
    again = child("dataset", many, out, *SMALL, "--json")
    (answer,) = answers(again.communicate()[0])
    assert again.returncode == 0
    assert answer["counts"] == {"done": 7, "exists": 5, "rejected": 1, "failed": 0}
    (refused,) = answer["refused"]
    assert refused["code"] == "crashed"
    assert "item05.ply" in refused["reason"]
    assert "crashed" in (out / "report.md").read_text()
    third = child("dataset", many, out, *SMALL, "--json")
    assert answers(third.communicate()[0])[0]["counts"]["rejected"] == 1
    # Another content is another try.
    poison = many / "item05.ply"
    poison.write_bytes(b"ply\ncomment broken\n")
    last = child("dataset", many, out, *SMALL, "--json")
    (refused,) = answers(last.communicate()[0])[0]["refused"]
    assert refused["code"] == "unreadable_file"


@pytest.mark.skipif(os.name == "nt", reason="no signal says there how a process ended")
def test_a_worker_that_a_file_crashes_is_replaced(
    part, core, settings, many, tmp_path, monkeypatch
):
    (many / "item05.glb").with_suffix(".ply").write_bytes(POISON)
    items = core.read_source(many)[3:8]
    workers = part("operators.dataset.workers")
    command = child_command("dataset-worker", tmp_path / "out", *settings().to_arguments())
    monkeypatch.setattr(part("operators.dataset.child"), "extension_command", lambda _: command)
    run = part("operators.tasks.jobs").run(
        workers.worker_steps(items, tmp_path / "out", settings())
    )
    ended = {result.uid: (result.status, result.code) for result in run.results}
    (poison,) = (uid for uid, (status, _) in ended.items() if status != "done")
    assert ended[poison] == ("rejected", "crashed")
    assert run.report.rejected == 1


def test_a_companion_that_changed_is_seen(making, core, settings, meshes, tmp_path):
    out = tmp_path / "out"
    options = settings(min_iou=0.0, views=1)
    image = bpy.data.images.new("texture", 4, 4)
    image.filepath_raw, image.file_format = str(meshes / "texture.png"), "PNG"
    image.save()
    (meshes / "obj.mtl").write_text("newmtl m\nKd 1 1 1\nmap_Kd -s 1 1 1 texture.png\n")
    (meshes / "obj.obj").write_text(
        "mtllib obj.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl m\n"
        "f 1/1 2/2 3/3\n"
    )
    sources = ("obj.obj", "gltf.gltf", "usda.usda")
    items = [item for name in sources for item in core.read_source(meshes / name)]

    def done() -> dict[str, str]:
        results = making.make_dataset(items, out, options).results
        return {result.uid: result.status for result in results}

    assert set(done().values()) == {"done"}
    assert set(done().values()) == {"exists"}
    row = json.loads((out / "metadata/obj.json").read_text())
    assert set(row["companions"]) == {"obj.mtl", "texture.png"}
    for name, at, uid in (
        ("texture.png", -3, "obj"),
        ("gltf.bin", 0, "gltf"),
        ("obj.mtl", -3, "obj"),
    ):
        path = meshes / name
        before = path.stat()
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert [u for u, status in done().items() if status != "exists"] == [uid], name
    # The changed line names another picture, which was not there and now is.
    (named,) = set(json.loads((out / "metadata/obj.json").read_text())["companions"]) - {"obj.mtl"}
    assert named != "texture.png"
    assert set(done().values()) == {"exists"}
    (meshes / "texture.png").rename(meshes / named)
    assert done()["obj"] == "done"


def test_the_same_size_and_time_do_not_make_the_same_file(making, core, settings, meshes, tmp_path):
    path, out = meshes / "ply.ply", tmp_path / "out"
    items, options = core.read_source(path), settings(min_iou=0.0, views=1)
    making.make_dataset(items, out, options)
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    (result,) = making.make_dataset(items, out, options).results
    assert result.status != "exists"


def test_a_file_that_changes_while_it_is_read_is_made_by_the_next_run(
    making, core, settings, meshes, tmp_path
):
    items, options = core.read_source(meshes / "glb.glb"), settings(views=1)

    def load(item):
        objects = making.open_item(item)
        os.utime(item.source)
        return objects

    (result,) = part_run(making, items, tmp_path / "out", options, load).results
    assert (result.status, result.code) == ("failed", "source_changed")
    assert making.make_dataset(items, tmp_path / "out", options).count("done") == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_pipes_and_devices_are_no_sources_and_no_textures(making, core, settings, meshes, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    os.mkfifo(folder / "pipe.glb")
    (folder / "zero.ply").symlink_to("/dev/zero")
    os.mkfifo(folder / "t.png")
    (folder / "t.mtl").write_text("newmtl m\nmap_Kd t.png\n")
    (folder / "t.obj").write_text("mtllib t.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl m\nf 1 2 3\n")
    (folder / "whole.glb").write_bytes((meshes / "glb.glb").read_bytes())
    run = making.make_dataset(core.read_source(folder), tmp_path / "out", settings(views=1))
    ended = {result.uid: (result.status, result.code) for result in run.results}
    assert ended.pop("whole") == ("done", "")
    assert set(ended.values()) == {("failed", "unreadable_file")}


@pytest.mark.skipif(os.name == "nt", reason="names there are UTF-16")
def test_a_file_whose_name_is_not_utf_8_ends_no_run(making, core, settings, meshes, tmp_path):
    folder = os.fsencode(tmp_path / "odd")
    os.mkdir(folder)
    content = (meshes / "glb.glb").read_bytes()
    for name in (b"a.glb", b"caf\xe9.glb", b"z.glb"):
        with open(os.path.join(folder, name), "wb") as stream:
            stream.write(content)
    run = making.make_dataset(
        core.read_source(tmp_path / "odd"), tmp_path / "out", settings(views=1)
    )
    assert len(run.results) == 3
    for kind in ("xrays", "images"):
        uids = {path.name for path in (tmp_path / "out" / kind).iterdir()}
        assert uids == {path.stem for path in (tmp_path / "out/metadata").iterdir()}
    assert run.count("done") == 3


def test_two_runs_at_once_on_one_folder(core, many, tmp_path):
    both = [child("dataset", many, tmp_path / "out", *SMALL, "--json") for _ in range(2)]
    said = [answers(process.communicate()[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    for (answer,) in said:
        assert answer["counts"]["done"] + answer["counts"]["exists"] == 12
    assert len((tmp_path / "out/metadata.jsonl").read_text().splitlines()) == 24
    assert json.loads((tmp_path / "out/report.json").read_text())["captured"] == 12
    assert not (tmp_path / "out/.work").exists()


def test_a_worker_answers_each_line(core, meshes, tmp_path):
    items = core.read_source(meshes)[:2]
    (tmp_path / "broken.glb").write_text("")
    items.append(core.read_source(tmp_path / "broken.glb")[0])
    lines = [json.dumps(item.to_dict()) for item in items]
    lines = [lines[0], "no item", "", lines[1], lines[0], lines[2]]
    worker = child("dataset-worker", tmp_path / "out", *SMALL, stdin=subprocess.PIPE)
    out, _ = worker.communicate("\n".join(lines) + "\n")
    results = [core.ItemResult.from_dict(answer) for answer in answers(out)]
    assert [(r.uid, r.status, r.code) for r in results] == [
        (items[0].uid, "done", ""),
        ("", "failed", "bad_item"),
        (items[1].uid, "done", ""),
        (items[0].uid, "exists", ""),
        ("broken", "failed", "unreadable_file"),
    ]
    assert worker.returncode == 0
    assert json.loads(Path(results[-1].log).read_text())["reason"] == results[-1].reason
    assert not (tmp_path / "out/metadata.jsonl").exists()


@pytest.fixture
def main(part):
    return part("operators.command").main


def test_shards_together_are_the_whole(main, many, tmp_path):
    assert main(["dataset", str(many), str(tmp_path / "whole"), *SMALL]) == 0
    for shard in ("1/3", "2/3", "3/3"):
        assert main(["dataset", str(many), str(tmp_path / "parts"), *SMALL, "--shard", shard]) == 0
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_failed_items_are_named_one_a_line(main, many, capfd, tmp_path):
    (many / "broken.glb").write_bytes(b"no mesh")
    (many / "foreign.off").write_bytes(b"OFF")
    code = main(["dataset", str(many), str(tmp_path / "out"), *SMALL, "--json"])
    out, err = capfd.readouterr()
    assert code == 1
    assert json.loads(out)["counts"] == {"done": 12, "exists": 0, "rejected": 0, "failed": 2}
    lines = [line for line in err.splitlines() if line.startswith("xray: ")]
    assert [line.split(":")[1].strip() for line in lines[:-1]] == ["broken", "foreign"]
    assert "Log: " in lines[0]
    assert lines[-1] == "xray: 12 done, 0 exists, 0 rejected, 2 failed"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("nowhere",), "no file"),
        ((".", "--shard", "5/4"), "no shard"),
        ((".", "--cameras", "poses"), "poses is empty"),
        ((".", "--lights", "hdri", "--hdri", "nowhere.hdr"), "no environment image"),
        ((".", "--lights", "hdri", "--hdri", __file__), "is not an image"),
        ((".", "--cameras", "poses", "--poses", __file__), "is not a transforms.json"),
    ],
)
def test_wrong_options_are_usage_errors(main, many, capsys, tmp_path, arguments, reason):
    source = many if arguments[0] == "." else tmp_path / arguments[0]
    assert main(["dataset", str(source), str(tmp_path / "out"), *arguments[1:]]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_importers_keep_to_themselves(main, many, capfd, tmp_path):
    assert main(["dataset", str(many), str(tmp_path / "out"), *SMALL, "--shard", "1/6"]) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "xray: 2 done, 0 exists, 0 rejected, 0 failed\n"


def test_a_worker_says_what_is_wrong_with_the_settings(core, meshes, tmp_path):
    options = ("--image=cycles", "--lights=hdri", f"--hdri={__file__}")
    worker = child("dataset-worker", tmp_path / "out", *options, stdin=subprocess.PIPE)
    out, _ = worker.communicate("")
    (result,) = map(core.ItemResult.from_dict, answers(out))
    assert (result.uid, result.code, worker.returncode) == ("", "bad_environment", 2)
    assert "is not an image" in result.reason


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow(making, core, settings, meshes, tmp_path):
    def resident():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    source = str(meshes / "glb.glb")
    items = [core.Item(f"item{i:03d}", source) for i in range(120)]
    tiny = settings(views=1, size=16, image="none")
    making.make_dataset(items[:40], tmp_path, tiny)
    before = resident()
    making.make_dataset(items[40:], tmp_path, tiny)
    assert resident() - before < 8


def test_omages_are_written_with_the_item_and_counted(making, core, settings, meshes, tmp_path):
    items = core.read_source(meshes / "glb.glb") + core.read_source(meshes / "stl.STL")
    asked, out = settings(omage="64, 128", image="none"), tmp_path / "out"
    run = making.make_dataset(items, out, asked)
    assert [result.status for result in run.results] == ["done", "done"], run.results
    written = {name for name in files(out) if name.startswith("omages/")}
    assert written == {f"omages/{uid}/{size}.npz" for uid in ("glb", "stl") for size in (64, 128)}
    with np.load(out / "omages/glb/64.npz") as archive:
        assert archive["arr_0"].shape == (64, 64, 12)
    row = json.loads((out / "metadata/stl.json").read_text())["omage"]
    assert row["resolutions"] == [128, 64]
    assert row["unwrapped"]  # an STL has no UVs
    assert (run.report.omages, list(run.report.unwrapped)) == (2, ["stl"])
    assert "2 as omages, 1 of them unwrapped" in (out / "report.md").read_text()
    before = files(out)
    again = making.make_dataset(items, out, asked)
    assert [result.status for result in again.results] == ["exists", "exists"]
    assert files(out) == before


def test_an_omage_that_is_missing_is_made_again_and_other_resolutions_are_others(
    making, core, settings, meshes, part, tmp_path
):
    (item,) = core.read_source(meshes / "glb.glb")
    out = tmp_path / "out"
    making.make_dataset([item], out, settings(omage="64", image="none"))
    before = files(out)
    (out / "omages/glb/64.npz").unlink()
    run = making.make_dataset([item], out, settings(omage="64", image="none"))
    assert run.results[0].status == "done"
    assert files(out) == before
    error = part("xray_addon.errors").XRayError
    for other in ("", "128"):
        with pytest.raises(error) as raised:
            making.make_dataset([item], out, settings(omage=other, image="none"))
        assert raised.value.code == "other_settings"
    for wrong in ("4", "64,x", "99999"):
        with pytest.raises(error) as raised:
            settings(omage=wrong)
        assert raised.value.code == "bad_settings"
