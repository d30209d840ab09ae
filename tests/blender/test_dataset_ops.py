"""The operator `xray.dataset` and its panel: the same files as the command line."""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import bpy
import pytest

MODULE = "bl_ext.user_default.xray"
SETTINGS = {"views": 2, "layers": 4, "size": 32, "image": "cast", "image_size": 64, "seed": 3}
OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]


@pytest.fixture
def main(part):
    return part("operators.command").main


def files(folder) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.relative_to(folder).parts[0] != "logs"
    }


@pytest.fixture
def scene(cube, tmp_path):
    """Two objects, one of them in a collection, in a saved file."""
    other = bpy.data.collections.new("Others")
    bpy.context.scene.collection.children.link(other)
    bpy.ops.mesh.primitive_ico_sphere_add(location=(3, 0, 0))
    ball = bpy.context.object
    for collection in list(ball.users_collection):
        collection.objects.unlink(ball)
    other.objects.link(ball)
    return cube, ball


def test_files_by_operator_and_by_command_are_the_same(main, cube, tmp_path):
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    bpy.ops.export_scene.gltf(filepath=str(meshes / "cube.glb"))
    (meshes / "broken.glb").write_bytes(b"no mesh")
    panel = bpy.context.scene.xray.dataset
    panel.source, panel.path, panel.directory = "files", str(meshes), str(tmp_path / "panel")
    for name, value in SETTINGS.items():
        setattr(panel, name, value)
    button = dict.fromkeys(("source", "path", "directory"))
    button = {name: getattr(panel, name) for name in [*button, *SETTINGS]}
    assert bpy.ops.xray.dataset(**button) == {"FINISHED"}
    assert "Cube" in bpy.data.objects, "the user's file is left alone"
    assert main(["dataset", str(meshes), str(tmp_path / "command"), *OPTIONS]) == 1
    assert files(tmp_path / "panel") == files(tmp_path / "command")
    assert set(files(tmp_path / "panel")) == {
        "images/cube/000.png",
        "images/cube/001.png",
        "images/cube/transforms.json",
        "metadata/cube.json",
        "metadata.jsonl",
        "refused/broken.json",
        "report.json",
        "report.md",
        "settings.json",
        "xrays/cube/000.npz",
        "xrays/cube/001.npz",
    }


def test_selected_objects_are_captured_as_their_file_is(main, scene, tmp_path):
    cube, ball = scene
    path = tmp_path / "Cube.blend"
    bpy.context.view_layer.objects.active = cube
    ball.select_set(False)
    cube.select_set(True)
    operator = {"source": "selection", "directory": str(tmp_path / "operator"), **SETTINGS}
    assert bpy.ops.xray.dataset(**operator) == {"FINISHED"}
    bpy.data.objects.remove(ball)
    bpy.ops.wm.save_as_mainfile(filepath=str(path))
    assert main(["dataset", str(path), str(tmp_path / "command"), *OPTIONS]) == 0
    a, b = files(tmp_path / "operator"), files(tmp_path / "command")
    for name in ("xrays/Cube/000.npz", "images/Cube/001.png", "images/Cube/transforms.json"):
        assert a[name] == b[name]
    assert (
        json.loads(a["metadata/Cube.json"])["views"] == json.loads(b["metadata/Cube.json"])["views"]
    )


def test_files_beside_the_blend_file(part, cube, tmp_path):
    """The file browser names them so, and other Blenders and the runtime do not know where."""
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "work.blend"))
    properties, settings = part("operators.properties"), part("xray_addon.settings")
    scene = bpy.context.scene.xray
    scene.dataset.poses = "//poses.json"
    scene.generate.systems.xray.checkpoint = "//weights.safetensors"
    read = properties.settings_from_properties(settings.DatasetSettings, scene.dataset)
    assert (read.poses, read.hdri) == (str(tmp_path / "poses.json"), "")
    read = part("operators.generate.settings").panel_settings(scene.generate)
    assert read.checkpoint == str(tmp_path / "weights.safetensors")


def test_a_collection(scene, tmp_path):
    done = bpy.ops.xray.dataset(
        source="collection", collection="Others", directory=str(tmp_path), **SETTINGS
    )
    assert done == {"FINISHED"}
    assert [p.name for p in (tmp_path / "xrays").iterdir()] == ["Icosphere"]


def test_a_collection_of_instances(scene, tmp_path):
    instances = bpy.data.collections.new("Instances")
    bpy.context.scene.collection.children.link(instances)
    for name, instanced in (("Chair", bpy.data.collections["Others"]), ("Nothing", None)):
        empty = bpy.data.objects.new(name, None)
        if instanced:
            empty.instance_type, empty.instance_collection = "COLLECTION", instanced
        instances.objects.link(empty)
    arguments = {"directory": str(tmp_path), **SETTINGS}
    done = bpy.ops.xray.dataset(source="collection", collection="Instances", **arguments)
    assert done == {"FINISHED"}
    assert [p.name for p in (tmp_path / "xrays").iterdir()] == ["Chair"]
    assert not (tmp_path / "refused").exists()


def test_objects_are_captured_anew_as_they_may_have_changed(cube, tmp_path):
    arguments = {"directory": str(tmp_path), **SETTINGS}
    bpy.ops.xray.dataset(**arguments)
    before = files(tmp_path)
    cube.scale = (1, 1, 3)
    bpy.ops.xray.dataset(**arguments)
    assert files(tmp_path)["xrays/Cube/000.npz"] != before["xrays/Cube/000.npz"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"source": "files"}, "no files to capture"),
        ({"source": "files", "path": "/no/such/folder"}, "no file"),
        ({"source": "collection"}, "No collection is chosen"),
        ({"source": "collection", "collection": "X"}, "no collection 'X'"),
        ({"directory": ""}, "no folder to write to"),
        ({"cameras": "poses"}, "poses is empty"),
    ],
)
def test_what_is_missing_is_said(cube, tmp_path, arguments, reason):
    with pytest.raises(RuntimeError, match=reason):
        bpy.ops.xray.dataset(**{"directory": str(tmp_path), **arguments})


def test_objects_are_captured_at_the_frame_that_is_shown(cube, tmp_path):
    """The scene's, unless one is asked for; the panel asks for none."""
    for frame, length in ((1, 1.0), (20, 3.0)):
        cube.scale.z = length
        cube.keyframe_insert("scale", frame=frame)
    scene = bpy.context.scene
    scene.frame_set(20)
    button = SimpleNamespace()
    panel = importlib.import_module(f"{MODULE}.operators.dataset.ops")
    panel.set_from_panel(button, scene)
    assert not hasattr(button, "frame")
    scene.xray.dataset.source = "files"
    panel.set_from_panel(button, scene)
    assert button.frame == scene.xray.dataset.frame == 1

    rows = {}
    for name, asked in (("shown", {}), ("asked", {"frame": 1}), ("first", {"frame": 20})):
        bpy.ops.xray.dataset(directory=str(tmp_path / name), **asked, **SETTINGS)
        rows[name] = files(tmp_path / name)["xrays/Cube/000.npz"]
    assert rows["shown"] == rows["first"] != rows["asked"]
    assert scene.frame_current == 20


def test_other_settings_are_asked_about_before_they_replace(cube, part, tmp_path):
    operator = part("operators.dataset.ops").XRAY_OT_dataset
    arguments = {"directory": str(tmp_path), **SETTINGS}
    bpy.ops.xray.dataset(**arguments)
    before = files(tmp_path)
    with pytest.raises(RuntimeError, match="views is 2 there and 1 here"):
        bpy.ops.xray.dataset(**{**arguments, "views": 1})
    assert files(tmp_path) == before

    asked = {}
    manager = SimpleNamespace(
        invoke_confirm=lambda *_, **arguments: asked.update(arguments) or {"FINISHED"}
    )
    context = SimpleNamespace(
        window_manager=manager, scene=bpy.context.scene, selected_objects=[cube]
    )
    panel = bpy.context.scene.xray.dataset
    values = {
        **{
            name: getattr(panel, name)
            for name in part("xray_addon.settings").DatasetSettings().to_dict()
        },
        **arguments,
        "views": 1,
    }
    dialog = SimpleNamespace(
        **values,
        source="selection",
        replace=False,
        properties=SimpleNamespace(is_property_set=lambda _: False),
    )
    for name in ("_items", "_objects", "_at_frame"):
        setattr(dialog, name, getattr(operator, name).__get__(dialog))
    assert operator.invoke(dialog, context, None) == {"FINISHED"}
    assert dialog.replace
    assert asked["confirm_text"] == "Replace"
    assert "views is 2 there and 1 here" in asked["message"]
    bpy.ops.xray.dataset(**{**arguments, "views": 1, "replace": True})
    assert "xrays/Cube/001.npz" not in files(tmp_path)


def test_the_cameras_are_shown_where_they_would_stand(cube, part, tmp_path):
    cube.location, cube.scale = (5, 0, 1), (1, 1, 2)
    bpy.context.view_layer.update()
    settings = {"cameras": "turntable", "views": 3, "elevation": 0.0, "distance": 2.0}
    for _ in range(2):  # the second time in place of the first
        assert bpy.ops.xray.dataset_cameras(**settings) == {"FINISHED"}
    shown = bpy.data.collections["X-Ray Cameras"].objects
    bpy.context.view_layer.update()
    places = sorted(tuple(round(x, 3) for x in obj.matrix_world.translation) for obj in shown)
    assert len(places) == 3
    for x, y, z in places:  # twice the longest side of 4 from the centre
        assert (x - 5) ** 2 + y**2 == pytest.approx(64, rel=1e-3)
        assert z == pytest.approx(1, abs=1e-3)
    with pytest.raises(RuntimeError, match=r"transforms\.json"):
        bpy.ops.xray.dataset_cameras(cameras="poses")
    cube.select_set(False)
    bpy.context.view_layer.objects.active = None
    assert not bpy.ops.xray.dataset_cameras.poll()


def test_the_cameras_are_shown_around_the_rest_pose(cube, part):
    bpy.ops.object.armature_add(location=(0, 0, -1))
    bones = bpy.context.object
    cube.modifiers.new("Bones", "ARMATURE").object = bones
    cube.vertex_groups.new(name="Bone").add(range(8), 1.0, "REPLACE")
    bones.pose.bones["Bone"].location.y = 5.0  # up
    bpy.context.view_layer.update()
    ops, settings = part("operators.dataset.ops"), part("xray_addon.settings").DatasetSettings
    heights = [
        ops.object_cameras(cube, settings(cameras="turntable", elevation=0.0, pose=pose))[0]
        .position[2]
        .round(3)
        for pose in ("frame", "rest")
    ]
    assert heights == [5.0, 0.0]
    assert bones.data.pose_position == "POSE"


def test_settings_are_kept_as_a_preset(xray, part):
    scene = bpy.context.scene.xray.dataset
    scene.views, scene.cameras = 7, "ring"
    assert bpy.ops.xray.dataset_preset_add(name="Ring of Seven") == {"FINISHED"}
    folder = Path(bpy.utils.user_resource("SCRIPTS", path="presets/xray/dataset"))
    (path,) = map(str, folder.glob("*.py"))
    scene.views, scene.cameras = 1, "sphere"
    bpy.ops.script.execute_preset(filepath=path, menu_idname="XRAY_PT_dataset_presets")
    assert (scene.views, scene.cameras) == (7, "ring")


def test_nothing_selected(cube, tmp_path):
    cube.select_set(False)
    with pytest.raises(RuntimeError, match="No object with faces is selected"):
        bpy.ops.xray.dataset(directory=str(tmp_path))


def test_only_in_object_mode(cube):
    bpy.ops.object.mode_set(mode="EDIT")
    assert not bpy.ops.xray.dataset.poll()
    with pytest.raises(RuntimeError, match="Leave Edit Mode"):
        bpy.ops.xray.dataset()


def test_a_worker_says_strange_things_first(part, monkeypatch, tmp_path):
    """A greeting in another encoding ends no run, and is no answer."""
    workers = part("operators.dataset.workers")
    read_source = part("xray_addon.dataset.manifest").read_source
    (tmp_path / "a.obj").write_text("")
    answer = json.dumps(part("xray_addon.dataset.result").ItemResult("a", "done").to_dict())
    script = f"import os; os.write(1, b'Gr\\xfc\\xdfe\\n'); print({answer!r}, flush=True); input()"
    child = part("operators.dataset.child")
    monkeypatch.setattr(child, "extension_command", lambda _: [sys.executable, "-c", script])
    items = read_source(tmp_path)
    settings = part("xray_addon.settings").DatasetSettings()
    run = answered(workers.worker_steps(items, tmp_path / "out", settings))
    assert [result.status for result in run.results] == ["done"]


def test_what_stops_every_item_stops_the_run(part, monkeypatch, tmp_path):
    workers = part("operators.dataset.workers")
    read_source = part("xray_addon.dataset.manifest").read_source
    for name in ("a.obj", "b.obj"):
        (tmp_path / name).write_text("")
    answer = json.dumps(
        part("xray_addon.dataset.result")
        .ItemResult("a", "failed", "no_gpu", "Nothing to draw with.")
        .to_dict()
    )
    script = f"print({answer!r}, flush=True); input()"
    child = part("operators.dataset.child")
    monkeypatch.setattr(child, "extension_command", lambda _: [sys.executable, "-c", script])
    items = read_source(tmp_path)
    settings = part("xray_addon.settings").DatasetSettings()
    with pytest.raises(part("xray_addon.errors").XRayError, match="Nothing to draw with"):
        answered(workers.worker_steps(items, tmp_path / "out", settings))
    assert not (tmp_path / "out" / "refused").exists()


def test_a_file_that_takes_too_long_costs_itself(part, monkeypatch, tmp_path):
    workers = part("operators.dataset.workers")
    read_source = part("xray_addon.dataset.manifest").read_source
    for name in ("a.obj", "b.obj"):
        (tmp_path / name).write_text("")
    answer = json.dumps(part("xray_addon.dataset.result").ItemResult("b", "done").to_dict())
    script = (
        "import sys, time\n"
        "if '\"a\"' in input(): time.sleep(60)\n"
        f"print({answer!r}, flush=True); input()"
    )
    child = part("operators.dataset.child")
    monkeypatch.setattr(child, "extension_command", lambda _: [sys.executable, "-c", script])
    monkeypatch.setattr(workers, "ITEM_TIMEOUT", 1.0)
    items = read_source(tmp_path)
    settings = part("xray_addon.settings").DatasetSettings()
    run = answered(workers.worker_steps(items, tmp_path / "out", settings))
    assert [(r.status, r.code) for r in run.results] == [("failed", "worker_hung"), ("done", "")]
    assert "no progress for 1 s" in run.results[0].reason


def test_a_worker_that_cannot_start_says_why(part, monkeypatch, tmp_path):
    workers = part("operators.dataset.workers")
    read_source = part("xray_addon.dataset.manifest").read_source
    (tmp_path / "a.obj").write_text("")
    answer = json.dumps(
        part("xray_addon.dataset.result")
        .ItemResult("", "failed", "bad_environment", "No image.")
        .to_dict()
    )
    script = f"print({answer!r}, flush=True); input()"
    child = part("operators.dataset.child")
    monkeypatch.setattr(child, "extension_command", lambda _: [sys.executable, "-c", script])
    items = read_source(tmp_path)
    settings = part("xray_addon.settings").DatasetSettings()
    with pytest.raises(part("xray_addon.errors").XRayError, match="No image"):
        answered(workers.worker_steps(items, tmp_path / "out", settings))


def test_nothing_is_replaced_for_an_environment_that_is_no_image(cube, part, tmp_path):
    bpy.ops.xray.dataset(directory=str(tmp_path), **SETTINGS)
    before = (tmp_path / "settings.json").read_bytes()
    workers = part("operators.dataset.workers")
    settings = part("xray_addon.settings").DatasetSettings(lights="hdri", hdri=__file__)
    item = part("xray_addon.dataset.manifest").Item("a", "a.obj")
    with pytest.raises(part("xray_addon.errors").XRayError, match="is not an image"):
        answered(workers.worker_steps([item], tmp_path, settings, replace=True))
    assert (tmp_path / "settings.json").read_bytes() == before
    assert (tmp_path / "metadata/Cube.json").exists()


def answered(steps):
    """The result of steps that wait for another process."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value
        time.sleep(0.01)
    steps.close()
    raise AssertionError("no answer")


def test_one_dataset_at_a_time(cube, part, run_tasks, tmp_path):
    jobs, ops = part("operators.tasks.jobs"), part("operators.dataset.ops")
    task = jobs.submit(jobs.Task("Make Dataset", iter(()), operator=ops.XRAY_OT_dataset.__name__))
    assert not bpy.ops.xray.dataset.poll()
    with pytest.raises(RuntimeError, match="A dataset is being made"):
        bpy.ops.xray.dataset()
    jobs.queue.remove(task)
    assert bpy.ops.xray.dataset.poll()


def test_the_estimate_names_objects_and_views(part):
    ops, settings = part("operators.dataset.ops"), part("xray_addon.settings")
    few = ops.estimate(1, settings.DatasetSettings(views=2, image="cast"))
    assert few.startswith("1 object, 2 views: roughly a minute and ")
    many = ops.estimate(1000, settings.DatasetSettings(views=10))
    assert many.startswith("1,000 objects, 10,000 views: roughly 6 h and ")
    scene = ops.estimate(3, settings.DatasetSettings(views=10, cameras="scene"))
    assert scene.startswith("3 objects, 3 views: ")
    sliced = ops.estimate(3, settings.DatasetSettings(views=10, cameras="scene", slices=True))
    assert sliced.startswith("3 objects, 30 views: ")
    many = ops.estimate(120, settings.DatasetSettings(views=1, image="cast", slices=True))
    assert "roughly 12 min and" in many, "signed distances take most of it"
    sliced = settings.DatasetSettings(views=10, image="cast", slices=True, slice_shading="cycles")
    many = ops.estimate(360, sliced)
    assert "roughly 7 h and" in many, "twelve slices a view take most of it"


def test_the_panel_has_every_setting(part):
    panels, settings = part("panels.dataset"), part("xray_addon.settings")
    shown = [name for cls in panels.DatasetPart.__subclasses__() for name in cls.settings]
    assert sorted(shown) == sorted(settings.DatasetSettings().to_dict())


@pytest.mark.parametrize("source", ["selection", "collection", "files"])
def test_the_panels_draw_after_a_run(cube, part, monkeypatch, tmp_path, source):
    panels = part("panels.dataset")

    def draw_text(
        layout, _context, text, *_, **__
    ):  # without a window there is no width to wrap to
        layout.label(text=text)

    monkeypatch.setattr(panels, "draw_text", draw_text)
    empty = bpy.data.objects.new("Empty", bpy.data.meshes.new("Empty"))
    bpy.context.collection.objects.link(empty)
    empty.select_set(True)
    bpy.context.scene.xray.dataset.source = source
    bpy.ops.xray.dataset(directory=str(tmp_path), **SETTINGS)
    for cls in (panels.XRAY_PT_dataset, *panels.DatasetPart.__subclasses__()):
        layout = MagicMock()
        panel = SimpleNamespace(layout=layout, settings=getattr(cls, "settings", ()))
        cls.draw(panel, bpy.context)
        assert layout.mock_calls
    drawn = MagicMock()
    panels.XRAY_PT_dataset.draw(SimpleNamespace(layout=drawn), bpy.context)
    assert any("1 done" in str(call) for call in drawn.mock_calls)
    assert any("Empty: There are no faces" in str(call) for call in drawn.mock_calls)


def shown(part, changes):
    """`SETTINGS` with `changes`, at the frame that is shown."""
    frame = bpy.context.scene.frame_current
    return part("xray_addon.settings").DatasetSettings(**SETTINGS | {"frame": frame} | changes)


class TestInAWindow:
    """Datasets of the open file's objects while the user goes on working."""

    @pytest.fixture
    def make(self, part, tmp_path):
        """Makes a dataset of objects as in a window; `meanwhile` is called at each step."""
        capture, ops = part("operators.dataset.capture"), part("operators.dataset.ops")

        def make(*objects, meanwhile=lambda _: None, scene=None, **changes):
            settings = shown(part, changes)
            steps = capture.dataset_steps(
                ops.object_items(objects),
                tmp_path / "window",
                settings,
                ops.load_objects,
                apart=True,
                scene=scene,
            )
            return part("operators.tasks.jobs").run(steps, meanwhile, interval=0.01)

        return make

    @pytest.fixture
    def expected(self, part, tmp_path):
        """Makes a dataset of objects as without a window; its files."""
        capture, ops = part("operators.dataset.capture"), part("operators.dataset.ops")

        def expected(*objects, **changes):
            folder = tmp_path / "expected"
            steps = capture.dataset_steps(
                ops.object_items(objects), folder, shown(part, changes), ops.load_objects
            )
            part("operators.tasks.jobs").run(steps)
            return files(folder)

        return expected

    @staticmethod
    def move(obj, x):
        """Without a key, so that only the open file knows it."""
        obj.location.x = x
        bpy.context.view_layer.update()

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"image": "cycles", "samples": 1, "denoise": False},
            {"image": "cycles", "samples": 1, "denoise": False, "lights": "scene"},
            {"image": "workbench"},
            {"image": "eevee", "samples": 1},
            {"image": "cast", "slices": True},
        ],
        ids=lambda changes: "-".join(map(str, changes.values())) or "cast",
    )
    def test_it_is_as_without_one_whatever_is_done_meanwhile(
        self, cube, make, expected, tmp_path, changes
    ):
        if changes.get("image") == "eevee" and not os.environ.get("XRAY_TEST_GPU_RENDERERS"):
            pytest.skip("set XRAY_TEST_GPU_RENDERERS to render with EEVEE (a minute)")
        cube.keyframe_insert("location", frame=1)
        armature = bpy.data.armatures.new("Bones")
        bpy.data.lights.new("Lamp", "POINT")
        lamp = bpy.data.objects.new("Lamp", bpy.data.lights["Lamp"])
        lamp.location = (3, -3, 3)
        bpy.context.collection.objects.link(lamp)
        self.move(cube, 2.0)
        wanted = expected(cube, pose="rest", **changes)
        self.move(cube, 2.0)  # rendering here has put it back
        messages = []

        def edit(progress):
            messages.append(progress.message)
            assert [scene.name for scene in bpy.data.scenes] == ["Scene"]
            assert armature.pose_position == "POSE"
            if "Cube" in messages[:-1]:
                self.move(cube, 9.0)

        run = make(cube, meanwhile=edit, pose="rest", **changes)
        assert [result.status for result in run.results] == ["done"]
        assert cube.location.x == 9.0, "nothing was done meanwhile"
        assert files(tmp_path / "window") == wanted
        assert {"Cube", "Cube, view 1 of 2", "Cube, view 2 of 2", "Writing the report"} <= set(
            messages
        )

    @pytest.fixture
    def chosen(self, cube, part):
        """The scene with the cube and a lamp, which another one has replaced in the window."""
        lamp = bpy.data.objects.new("Lamp", bpy.data.lights.new("Lamp", "SUN"))
        cube.parent = lamp  # whose rotation only the cube's own scene applies
        lamp.rotation_euler = (0.5, 0.2, 0.1)
        bpy.context.collection.objects.link(lamp)
        bpy.context.view_layer.update()
        return part("operators.dataset.chosen_scene").ChosenScene(bpy.context)

    def test_the_scene_is_that_of_the_start(self, cube, chosen, make, expected, tmp_path):
        first = bpy.context.scene
        options = {"image": "cycles", "samples": 1, "denoise": False, "lights": "scene"}
        wanted = expected(cube, **options)
        bpy.context.window.scene = other = bpy.data.scenes.new("Other")
        first.name = "Renamed"
        shown = []
        make(cube, scene=chosen, meanwhile=lambda _: shown.append(bpy.context.scene), **options)
        assert files(tmp_path / "window") == wanted
        assert {*shown} == {other}

    @pytest.mark.parametrize("kind", ["dataset", "capture"])
    def test_a_scene_removed_meanwhile_is_told(self, scene, chosen, make, part, tmp_path, kind):
        first = bpy.context.scene
        bpy.context.window.scene = bpy.data.scenes.new("Other")

        def remove(progress):
            if progress.message == "Icosphere":
                bpy.data.scenes.remove(first)

        def capture():
            steps = part("operators.dataset.plain").object_steps(
                scene,
                tmp_path / "window",
                part("xray_addon.settings").CaptureSettings(views=1, size=16),
                chosen,
            )
            part("operators.tasks.jobs").run(steps, remove)

        start = (
            capture if kind == "capture" else partial(make, *scene, scene=chosen, meanwhile=remove)
        )
        with pytest.raises(
            part("xray_addon.errors").XRayError, match="'Scene' was removed"
        ) as told:
            start()
        assert told.value.code == "scene_gone"
        assert [path.name for path in (tmp_path / "window/xrays").iterdir()] == ["Cube"]

    def test_what_is_edited_in_edit_mode_is_captured(self, cube, make, expected, tmp_path):
        bpy.ops.object.mode_set(mode="EDIT")
        bpy.ops.transform.resize(value=(3.0, 1.0, 1.0))
        make(cube, normalize="none")
        bpy.ops.object.mode_set(mode="OBJECT")
        assert files(tmp_path / "window") == expected(cube, normalize="none")

    def test_scripts_of_the_file_do_not_run(self, cube, make, tmp_path):
        witness = tmp_path / "ran"
        script = bpy.data.texts.new("register.py")
        script.write(f"open({str(witness)!r}, 'w').close()")
        script.use_module = True
        material = bpy.data.materials.new("Carrier")
        material["script"] = script  # which the second Blender gets with it
        cube.data.materials.append(material)
        make(cube, image="cycles", samples=1, denoise=False)
        assert not witness.exists()

    def test_an_image_that_is_only_in_memory_is_refused(self, cube, make, part):
        image = bpy.data.images.new("Painted", 8, 8)
        image.pixels = [0.5] * 256
        material = bpy.data.materials.new("Painted")
        tree = part("operators.convert.materials").with_nodes(material)
        tree.nodes.new("ShaderNodeTexImage").image = image
        other = bpy.data.images.new("Sketch", 8, 8)
        other.pixels = [0.5] * 256
        other.use_fake_user = True
        cube.data.materials.append(material)
        options = {"image": "cycles", "samples": 1, "denoise": False}
        (result,) = make(cube, **options).results
        assert (result.status, result.code) == ("failed", "unsaved_image")
        assert "only in memory: Painted." in result.reason
        image.pack()
        assert [result.status for result in make(cube, **options).results] == ["done"]

    def test_cancelling_leaves_nothing(self, cube, part, tmp_path, monkeypatch):
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        capture, ops = part("operators.dataset.capture"), part("operators.dataset.ops")
        cancelled = part("xray_addon.progress").Cancelled
        settings = shown(part, {"views": 50, "image": "cycles", "samples": 64, "denoise": False})
        out = tmp_path / "out"
        steps = capture.dataset_steps(
            ops.object_items([cube]), out, settings, ops.load_objects, apart=True
        )
        while "of 50" not in next(steps).message:
            time.sleep(0.01)
        assert [*temporary.iterdir()]
        with pytest.raises(cancelled):
            steps.throw(cancelled())
        assert not (out / "metadata" / "Cube.json").exists()
        assert not [*(out / ".work").glob("*")]
        assert not [*temporary.iterdir()]

    @pytest.fixture
    def started(self, part, monkeypatch):
        """The commands of second Blenders, in the order in which they started."""
        child, commands = part("operators.dataset.child"), []
        build = child.extension_command

        def command(arguments):
            commands.append(build(arguments))
            return commands[-1]

        monkeypatch.setattr(child, "extension_command", command)
        return commands

    def test_one_second_blender_renders_all_items(self, scene, make, expected, tmp_path, started):
        options = {"image": "cycles", "samples": 1, "denoise": False}
        wanted = expected(*scene, **options)
        make(*scene, **options)
        assert files(tmp_path / "window") == wanted
        assert len(started) == 1

    @pytest.mark.parametrize("image", ["cast", "cycles"])
    def test_slices_are_rendered_there_too(
        self, scene, make, expected, part, monkeypatch, tmp_path, started, image
    ):
        options = {"image": image, "samples": 1, "denoise": False, "slices": True}
        options["slice_shading"] = "cycles"
        wanted = expected(*scene, **options)

        def fail(*_, **__):
            raise AssertionError("this would stop the window")

        monkeypatch.setattr(part("operators.dataset.studio"), "shoot", fail)
        monkeypatch.setattr(part("operators.dataset.slice_rendering"), "shoot", fail)
        make(*scene, **options)
        assert files(tmp_path / "window") == wanted
        assert len(started) == 1

    def test_one_that_dies_between_two_items_costs_none(self, scene, make, part, monkeypatch):
        remote, children = part("operators.dataset.remote"), []

        def start(*arguments):
            children.append(part("operators.dataset.child").ChildBlender(*arguments))
            return children[-1]

        def kill(progress):
            if progress.message == "Icosphere" and len(children) == 1:
                children[0]._process.kill()
                children[0]._process.wait()

        monkeypatch.setattr(remote, "ChildBlender", start)
        run = make(*scene, meanwhile=kill, image="cycles", samples=1, denoise=False)
        assert [result.status for result in run.results] == ["done", "done"]
        assert len(children) == 2

    def test_a_second_blender_that_dies_costs_one_item(self, scene, make, part, monkeypatch):
        child = part("operators.dataset.child")
        script = "input(); print('gone', file=__import__('sys').stderr)"
        right = child.extension_command
        commands = [lambda _: [sys.executable, "-c", script], right]
        monkeypatch.setattr(child, "extension_command", lambda given: commands.pop(0)(given))
        first, second = make(*scene, image="cycles", samples=1, denoise=False).results
        assert (first.status, first.code) == ("failed", "worker_died")
        assert second.status == "done"
        assert [scene.name for scene in bpy.data.scenes] == ["Scene"]


@pytest.fixture
def threads(part, monkeypatch):
    """Whether the main thread has called those functions of the store that may take long."""
    store, called = part("xray_addon.dataset.store"), {}

    def call(name, real, *arguments):
        called[name] = threading.current_thread() is threading.main_thread()
        return real(*arguments)

    for name in ("conflict", "claim", "find", "finish"):
        monkeypatch.setattr(store, name, partial(call, name, getattr(store, name)))
    return called


def test_a_large_dataset_of_objects_does_not_stop_the_window(cube, part, threads, tmp_path):
    capture, ops = part("operators.dataset.capture"), part("operators.dataset.ops")
    settings = shown(part, SETTINGS)
    answered(
        capture.dataset_steps(
            ops.object_items([cube]), tmp_path, settings, ops.load_objects, apart=True
        )
    )
    del threads["find"]  # of one item
    assert threads == {"claim": False, "finish": False}


def test_a_large_dataset_of_files_does_not_stop_the_window(part, threads, monkeypatch, tmp_path):
    workers, result = (
        part("operators.dataset.workers"),
        part("xray_addon.dataset.result").ItemResult,
    )
    item = part("xray_addon.dataset.manifest").Item
    items = [item(f"item{number}", "a.obj") for number in range(500)]
    monkeypatch.setattr(workers.store, "find", lambda _, item, __: result(item.uid, "exists"))
    steps, messages = workers.worker_steps(items, tmp_path, shown(part, SETTINGS), True), []
    run = part("operators.tasks.jobs").run(steps, lambda each: messages.append(each.message))
    assert [result.uid for result in run.results] == [each.uid for each in items]
    assert threads == {"conflict": False, "claim": False, "finish": False}
    # None of them has a step of its own, between which the window's timer would wait.
    assert not {each.uid for each in items} & {*messages}


def test_linked_and_local_objects_of_one_name_are_two_items(cube, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "library.blend"), copy=True)
    with bpy.data.libraries.load(str(tmp_path / "library.blend"), link=True) as (_, linked):
        linked.objects = ["Cube"]
    bpy.context.collection.objects.link(linked.objects[0])
    cube.scale.x = 2.0
    for obj in bpy.context.view_layer.objects:
        obj.select_set(obj.type == "MESH")
    bpy.ops.xray.dataset(
        source="selection", directory=str(tmp_path / "out"), **SETTINGS | {"normalize": "none"}
    )
    rows = [json.loads(path.read_text()) for path in (tmp_path / "out/metadata").glob("*.json")]
    assert sorted(row["source"] for row in rows) == ["Cube", "Cube [library.blend]"]
    assert rows[0]["views"] != rows[1]["views"]


def test_nothing_is_replaced_by_a_worker_that_does_not_start(cube, part, monkeypatch, tmp_path):
    bpy.ops.xray.dataset(source="selection", directory=str(tmp_path), **SETTINGS)
    before = files(tmp_path)
    child, workers = part("operators.dataset.child"), part("operators.dataset.workers")
    settings = part("xray_addon.settings").DatasetSettings(views=1)
    item = part("xray_addon.dataset.manifest").Item("a", "a.obj")
    script = "raise SystemExit(7)"
    monkeypatch.setattr(child, "extension_command", lambda _: [sys.executable, "-c", script])
    with pytest.raises(part("xray_addon.errors").XRayError, match="ended with the code 7"):
        answered(workers.worker_steps([item], tmp_path, settings, replace=True))
    assert files(tmp_path) == before
