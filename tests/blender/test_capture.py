"""Capture: operator, Python and the published layout on disk."""

from __future__ import annotations

import json
from types import SimpleNamespace
from unittest.mock import MagicMock

import bpy
import numpy as np
import pytest


@pytest.fixture
def capture(part):
    return part("operators.dataset.plain")


@pytest.fixture
def settings(part):
    return lambda **values: part("xray_addon.settings").CaptureSettings(
        **{"views": 2, "layers": 4, "size": 32, **values}
    )


@pytest.fixture
def load(part):
    return part("xray_addon.xray").XRay.load


def files(folder) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def same(a, b) -> bool:
    return a.shape == b.shape and all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("index", "hit_depth", "hit_normal", "hit_color")
    )


def test_the_published_layout(cube, capture, settings, load, tmp_path):
    report = capture.capture_objects([cube], tmp_path, settings())
    assert files(tmp_path) == [
        "images/Cube/000.png",
        "images/Cube/001.png",
        "images/Cube/transforms.json",
        "xrays/Cube/000.npz",
        "xrays/Cube/001.npz",
    ]
    assert load(tmp_path / "xrays/Cube/000.npz").shape == (4, 32, 32)
    frames = json.loads((tmp_path / "images/Cube/transforms.json").read_text())["frames"]
    assert [frame["file_path"] for frame in frames] == ["./000", "./001"]
    (done,) = report.results
    assert (done.uid, done.status, done.views, done.dropped) == ("Cube", "done", 2, 0)
    assert done.hits == sum(len(load(tmp_path / f"xrays/Cube/00{i}.npz").index) for i in range(2))


def test_pictures_are_rgba_and_show_what_is_hit(cube, capture, settings, load, tmp_path):
    capture.capture_objects([cube], tmp_path, settings(views=1))
    image = bpy.data.images.load(str(tmp_path / "images/Cube/000.png"))
    assert (image.channels, tuple(image.size)) == (4, (64, 64))
    pixels = np.empty(64 * 64 * 4, np.float32)
    image.pixels.foreach_get(pixels)
    alpha = pixels.reshape(64, 64, 4)[::-1, :, 3]
    hit = load(tmp_path / "xrays/Cube/000.npz").hit[0]
    seen = alpha.reshape(32, 2, 32, 2).mean(axis=(1, 3)) > 0.5
    assert (seen & hit).sum() / (seen | hit).sum() > 0.95


def test_sampled_views_normalise_the_object(cube, capture, settings, load, tmp_path):
    capture.capture_objects([cube], tmp_path / "a", settings())
    cube.location, cube.scale = (100, -50, 3), (40, 40, 40)
    bpy.context.view_layer.update()
    capture.capture_objects([cube], tmp_path / "b", settings())
    a, b = (load(tmp_path / x / "xrays/Cube/001.npz") for x in "ab")
    assert np.array_equal(a.index, b.index)
    assert np.allclose(a.hit_depth, b.hit_depth, atol=1e-4)


def test_the_operator_does_what_the_function_does(cube, capture, settings, load, tmp_path):
    cube.modifiers.new("Bevel", "BEVEL")
    report = capture.capture_objects([cube], tmp_path / "function", settings(seed=7))
    result = bpy.ops.xray.capture(
        directory=str(tmp_path / "operator"), views=2, layers=4, size=32, seed=7
    )
    assert result == {"FINISHED"}
    assert files(tmp_path / "function") == files(tmp_path / "operator")
    for view in range(report.results[0].views):
        name = f"xrays/Cube/{view:03d}.npz"
        assert same(load(tmp_path / "function" / name), load(tmp_path / "operator" / name))


@pytest.mark.parametrize("camera", ["sampled", "scene"])
def test_panel_operator_and_command_line_give_the_same_bytes(cube, part, camera, tmp_path):
    bpy.ops.object.camera_add(location=(3, -7, 4), rotation=(1.1, 0, 0.4))
    bpy.context.scene.camera = bpy.context.object
    bpy.context.scene.frame_set(7)  # not the first: an object is captured as it is shown
    for name, place in ((1, 0.0), (7, 0.5)):
        cube.location.x = place
        cube.keyframe_insert("location", frame=name)
    bpy.ops.object.select_all(action="DESELECT")
    cube.select_set(True)
    values = {"views": 2, "layers": 4, "size": 32, "seed": 5, "camera": camera}
    blend = tmp_path / "Cube.blend"  # an item is called by its object, or by its file

    bpy.ops.xray.capture(directory=str(tmp_path / "operator"), **values)
    bpy.ops.wm.save_as_mainfile(filepath=str(blend))
    bpy.ops.xray.capture(**button_of_the_panel(part, directory=str(tmp_path / "panel"), **values))
    options = [f"--{name}={value}" for name, value in values.items()]
    main = part("operators.command").main
    assert main(["capture", str(blend), str(tmp_path / "command"), *options]) == 0

    made = contents(tmp_path / "operator")
    assert len(made) == (5 if camera == "sampled" else 3)
    assert contents(tmp_path / "panel") == made
    assert contents(tmp_path / "command") == made


def contents(folder) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder)}


def button_of_the_panel(part, **values) -> dict[str, object]:
    """What the panel's button calls its operator with, when the panel holds `values`."""
    shown = bpy.context.scene.xray.capture
    for name, value in values.items():
        setattr(shown, name, value)
    layout = MagicMock()
    part("panels.capture").XRAY_PT_capture.draw(SimpleNamespace(layout=layout), bpy.context)
    button = layout.row.return_value.operator.return_value
    return {name: getattr(button, name) for name in (*values, "combine")}


def test_several_objects_each_or_as_one(cube, capture, settings, part, tmp_path):
    bpy.ops.mesh.primitive_cube_add(location=(4, 0, 0))
    both = [cube, bpy.context.object]
    capture.capture_objects(both, tmp_path / "each", settings())
    assert sorted(p.name for p in (tmp_path / "each/xrays").iterdir()) == ["Cube", "Cube-001"]
    capture.capture_objects(both, tmp_path / "one", settings(combine=True, layers=16))
    assert [p.name for p in (tmp_path / "one/xrays").iterdir()] == ["Cube"]
    placed = part("operators.layers.layers").load_placed(tmp_path / "one/xrays/Cube/000.npz")
    points = placed.xray.points(placed.camera).positions
    assert np.allclose(np.ptp(points, axis=0), (1, 1 / 3, 1 / 3), atol=0.05)


def test_the_scene_camera_sees_the_object_where_it_is(
    cube, capture, settings, load, part, tmp_path
):
    data = bpy.data.cameras.new("Camera")
    camera = bpy.data.objects.new("Camera", data)
    bpy.context.collection.objects.link(camera)
    camera.location, camera.rotation_euler = (0, 0, 10), (0, 0, 0)
    bpy.context.scene.camera = camera
    render = bpy.context.scene.render
    render.resolution_x, render.resolution_y = 200, 100
    bpy.context.view_layer.update()
    capture.capture_objects([cube], tmp_path, settings(camera="scene"))
    xray = load(tmp_path / "xrays/Cube/000.npz")
    assert xray.shape == (4, 16, 32)
    assert xray.depth[0].max() == pytest.approx(9, abs=0.1)
    assert files(tmp_path / "xrays") == ["Cube/000.npz"]
    placed = part("operators.layers.layers").load_placed(tmp_path / "xrays/Cube/000.npz")
    points = placed.xray.points(placed.camera).positions
    assert np.abs(points).max() == pytest.approx(1, abs=1e-4)


def test_capturing_again_replaces_what_was_there(cube, capture, settings, tmp_path):
    capture.capture_objects([cube], tmp_path, settings(views=3))
    capture.capture_objects([cube], tmp_path, settings(views=1))
    assert files(tmp_path / "xrays") == ["Cube/000.npz"]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_cancelled_item_is_absent(cube, capture, settings, part, tmp_path):
    progress = part("xray_addon.progress")
    steps = capture.object_steps([cube], tmp_path, settings(views=5))
    for _ in range(3):
        next(steps)
    with pytest.raises(progress.Cancelled):
        steps.throw(progress.Cancelled())
    assert files(tmp_path) == []


def test_one_bad_object_does_not_stop_the_others(cube, capture, settings, tmp_path):
    bpy.ops.object.empty_add()
    report = capture.capture_objects([bpy.context.object, cube], tmp_path, settings())
    ended = [(result.uid, result.status, result.code) for result in report.results]
    assert ended == [("Empty", "rejected", "no_faces"), ("Cube", "done", "")]


def test_an_object_that_vanished_says_so(cube, capture, settings, tmp_path, part):
    steps = capture.object_steps([cube], tmp_path, settings())
    next(steps)
    bpy.data.objects.remove(cube)
    report = part("operators.tasks.jobs").run(steps)
    assert report.results[0].code == "object_gone"


def test_a_point_has_no_size(capture, settings, tmp_path):
    mesh = bpy.data.meshes.new("Point")
    mesh.from_pydata([(1, 1, 1)] * 3, [], [(0, 1, 2)])
    obj = bpy.data.objects.new("Point", mesh)
    bpy.context.collection.objects.link(obj)
    bpy.context.view_layer.update()
    report = capture.capture_objects([obj], tmp_path, settings())
    assert report.results[0].code == "bad_mesh"


def test_a_folder_that_cannot_be_made_says_so(cube, capture, settings, part, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(part("xray_addon.errors").XRayError, match="cannot be written"):
        capture.capture_objects([cube], tmp_path / "file", settings())


def test_the_operator_needs_a_selection(cube):
    cube.select_set(False)
    assert not bpy.ops.xray.capture.poll()
    with pytest.raises(RuntimeError, match="Select one or more objects"):
        bpy.ops.xray.capture()


def test_the_operator_needs_a_folder(cube):
    with pytest.raises(RuntimeError, match="no folder to write to"):
        bpy.ops.xray.capture()
    with pytest.raises(RuntimeError, match="not saved yet"):
        bpy.ops.xray.capture(directory="//captures")
    with pytest.raises(RuntimeError, match="not saved yet"):
        bpy.ops.xray.save_slices(directory="//slices")
    with pytest.raises(RuntimeError, match="not saved yet"):
        bpy.ops.xray.object_to_omage(filepath="//omage.npz")


def test_an_object_that_no_ray_hits_is_told(xray, tmp_path, capfd):
    mesh = bpy.data.meshes.new("Line")
    mesh.from_pydata([(0, 0, 0), (1, 0, 0), (2, 0, 0)], [], [(0, 1, 2)])
    obj = bpy.data.objects.new("Line", mesh)
    bpy.context.scene.collection.objects.link(obj)
    obj.select_set(True)
    assert bpy.ops.xray.capture(directory=str(tmp_path), size=32, views=1) == {"FINISHED"}
    assert "Warning: Captured 1 object" in (told := capfd.readouterr().out)
    assert "No ray hit Line" in told


def test_the_preferences_folder_is_the_default(xray, cube, tmp_path):
    addon = bpy.context.preferences.addons[xray.__name__]
    addon.preferences.dataset_folder = str(tmp_path)
    assert bpy.ops.xray.capture(views=1, size=16) == {"FINISHED"}
    assert (tmp_path / "xrays/Cube/000.npz").exists()


def test_an_error_of_the_operator_is_its_text(cube, tmp_path):
    with pytest.raises(RuntimeError, match="Error: The scene has no camera") as caught:
        bpy.ops.xray.capture(directory=str(tmp_path), camera="scene")
    assert "Traceback" not in str(caught.value)
