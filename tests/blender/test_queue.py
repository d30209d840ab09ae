"""Several meshes at once: the queue, results side by side, and the same again."""

from __future__ import annotations

import itertools
import shlex

import bpy
import numpy as np
import pytest


@pytest.fixture
def jobs(part):
    return part("operators.tasks.jobs")


@pytest.fixture
def submit(jobs, part):
    progress = part("xray_addon.progress")

    def queued(label, steps=2, error=None, batch=None):
        def work():
            for step in range(steps):
                yield progress.Progress("count", step, steps)
            if error is not None:
                raise error
            return label

        return jobs.submit(jobs.Task(label, work(), batch=batch))

    return queued


@pytest.fixture
def images(tmp_path, part):
    paths = [tmp_path / f"{name}.png" for name in ("apple", "pear", "plum")]
    for path in paths:
        part("xray_addon.files.png").write_png(path, np.full((8, 8, 3), 200, np.uint8))
    return paths


def labels(jobs):
    return [task.label for task in jobs.queue]


def test_what_waits_can_be_moved_and_what_runs_stays_first(jobs, submit, run_tasks):
    tasks = [submit(label) for label in "abcd"]
    jobs._tick()
    jobs.move(tasks[3], -1)
    assert labels(jobs) == ["a", "b", "d", "c"]
    jobs.move(tasks[2], -5)
    assert labels(jobs) == ["a", "c", "b", "d"]
    jobs.move(tasks[0], 2)
    assert labels(jobs) == ["a", "c", "b", "d"]
    assert bpy.ops.xray.queue_move(index=3, by=-1) == {"FINISHED"}
    assert labels(jobs) == ["a", "c", "d", "b"]
    run_tasks()


def test_one_is_cancelled_or_all(jobs, submit, run_tasks):
    tasks = [submit(label) for label in "abc"]
    jobs._tick()
    bpy.ops.xray.cancel(index=1)
    assert labels(jobs) == ["a", "c"]
    bpy.ops.xray.cancel_all()
    run_tasks()
    assert [task.state for task in tasks] == ["cancelled"] * 3


def test_a_runtime_that_dies_twice_in_a_row_stops_the_batch(jobs, part, submit, run_tasks):
    error = part("xray_addon.errors").XRayError("runtime_died", "It died.")
    batch = object()
    for label in "abcd":
        submit(label, error=error, batch=batch)
    while jobs._tick() is not None:
        pass
    assert jobs.is_paused()
    assert labels(jobs) == ["c", "d"]
    assert "It died." in jobs.failure_details()
    assert bpy.ops.xray.queue_resume() == {"FINISHED"}
    assert not jobs.is_paused()
    bpy.ops.xray.cancel_all()


def test_time_left_is_told_by_the_pace(jobs, part, monkeypatch):
    progress = part("xray_addon.progress").Progress
    clock = [0.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: clock[0])

    def work():
        for step in range(5):
            clock[0] += 2.0
            yield progress("sample", step, 5)

    task = jobs.Task("Five", work())
    task.advance()
    assert task.seconds_left is None
    task.advance()
    assert task.seconds_left == pytest.approx(8.0)
    clock[0] += 1.0
    assert task.seconds_left == pytest.approx(7.0)


def test_a_stage_without_steps_tells_the_time_elapsed_once_a_second(jobs, part, monkeypatch):
    progress = part("xray_addon.progress").Progress
    clock, shown = [10.0], []
    monkeypatch.setattr(jobs.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(jobs, "redraw", lambda: shown.append(clock[0]))

    def work():
        while True:
            yield progress("load", message="loading the model")

    task = jobs.submit(jobs.Task("Load", work()))
    jobs._tick()
    shown.clear()
    for _ in range(650):
        clock[0] += 0.1
        jobs._tick()
    # About once a second, and never twice within one.
    assert 55 <= len(shown) <= 65
    assert np.diff(shown).min() >= 1.0
    assert jobs.describe_running(task) == "Loading the model, 1:05"
    jobs.cancel_all()
    jobs._tick()


def test_several_images_stand_side_by_side(fake_runtime, images):
    files = [{"name": path.name} for path in images]
    assert bpy.ops.xray.generate(directory=str(images[0].parent), files=files) == {"FINISHED"}
    made = [bpy.data.objects[path.stem] for path in images]
    for left, right in itertools.pairwise(made):
        bpy.context.view_layer.update()
        edge = max((left.matrix_world @ v.co).x for v in left.data.vertices)
        assert min((right.matrix_world @ v.co).x for v in right.data.vertices) > edge


def test_a_folder_is_all_of_its_images(fake_runtime, images):
    (images[0].parent / "notes.txt").write_text("no image")
    bpy.ops.xray.generate(directory=str(images[0].parent))
    assert {obj.name for obj in bpy.data.objects} == {"apple", "pear", "plum"}


def test_one_that_fails_does_not_take_the_others_along(fake_runtime, images):
    images[1].rename(images[1].with_name("bad.png"))
    with pytest.raises(RuntimeError, match="The image is bad"):
        bpy.ops.xray.generate(directory=str(images[0].parent))
    assert {obj.name for obj in bpy.data.objects} == {"apple", "plum"}


def test_variations_differ_by_their_seed(fake_runtime, images):
    bpy.ops.xray.generate(filepath=str(images[0]), seed=3, variations=2)
    seeds = {obj["xray_settings"]["seed"] for obj in bpy.data.objects}
    assert seeds == {3, 4}


@pytest.fixture
def panel(xray):
    return bpy.context.scene.xray.generate


def test_another_seed_is_the_next_and_stands_beside(fake_runtime, images):
    bpy.ops.xray.generate(filepath=str(images[0]), seed=3)
    first = bpy.context.object
    assert bpy.ops.xray.another_seed() == {"FINISHED"}
    second = bpy.context.object
    assert second["xray_settings"]["seed"] == 4
    assert second.location.x > first.location.x
    # The one after those that there are, not the one after the active mesh's.
    bpy.context.view_layer.objects.active = first
    bpy.ops.xray.another_seed()
    assert bpy.context.object["xray_settings"]["seed"] == 5


def test_another_seed_makes_a_difference_where_all_seeds_were_alike(fake_runtime, images):
    bpy.ops.xray.generate(filepath=str(images[0]), seed=3, variation=0.0, steps=1)
    bpy.ops.xray.another_seed()
    made = bpy.context.object["xray_settings"]
    assert (made["variation"], made["steps"]) == (1.0, 0)
    bpy.ops.xray.generate(filepath=str(images[0]), seed=3, variation=0.5)
    bpy.ops.xray.another_seed()
    assert bpy.context.object["xray_settings"]["variation"] == 0.5


def test_another_seed_is_refused_where_it_can_make_no_difference(fake_runtime, images, part):
    bpy.ops.xray.generate(filepath=str(images[0]))
    settings = part("xray_addon.settings").GenerateSettings
    bpy.context.object["xray_settings"] = settings("triposr").to_dict()
    with pytest.raises(RuntimeError, match="TripoSR makes the same mesh for every seed"):
        bpy.ops.xray.another_seed()
    bpy.context.object["xray_settings"] = settings("slice3d", branch="generation").to_dict()
    assert bpy.ops.xray.another_seed.poll()
    bpy.context.object["xray_settings"] = settings("renderdiffusion", t_r=0).to_dict()
    assert not bpy.ops.xray.another_seed.poll()
    bpy.context.object["xray_settings"] = settings("renderdiffusion", t_r=40).to_dict()
    assert bpy.ops.xray.another_seed.poll()
    bpy.context.object["xray_settings"] = settings("renderdiffusion", t_r=0).to_dict()
    bpy.context.object["xray_inputs"] = {"image": "", "mask": "", "category": ""}
    assert bpy.ops.xray.another_seed.poll()


def test_set_upright_makes_the_mesh_again_beside_it(fake_runtime, images, part):
    bpy.ops.xray.generate(filepath=str(images[0]), seed=3, margin=2.0)
    first = bpy.context.object
    assert bpy.ops.xray.set_upright() == {"FINISHED"}
    second = bpy.context.object
    made = second["xray_settings"]
    assert (made["upright"], made["seed"], made["margin"]) == ("always", 3, 2.0)
    assert first["xray_settings"]["upright"] == "auto"
    assert second.location.x > first.location.x
    with pytest.raises(RuntimeError, match="set upright already"):
        bpy.ops.xray.set_upright()
    settings = part("xray_addon.settings").GenerateSettings
    second["xray_settings"] = settings("triposr").to_dict()
    with pytest.raises(RuntimeError, match="TripoSR cannot set meshes upright"):
        bpy.ops.xray.set_upright()


def test_an_image_of_the_same_name_is_not_mistaken_for_another(
    fake_runtime, images, tmp_path, part
):
    first = bpy.data.images.load(str(images[0]))
    bpy.ops.xray.generate(image=first.name)
    obj, name = bpy.context.object, first.name
    bpy.data.images.remove(first)
    folder = tmp_path / "other"
    folder.mkdir()
    other = bpy.data.images.load(str(images[1].rename(folder / images[0].name)))
    assert other.name == name
    module = part("operators.generate.generation")
    assert module.inputs_of(obj).image == images[0]
    assert str(images[0]) in part("operators.generate.ops").command_line(obj)
    # If the file is gone, the project may have been moved.
    images[0].unlink()
    assert module.inputs_of(obj).image == other


def test_mirror_back_makes_the_mesh_again_beside_it(fake_runtime, images, part, capfd):
    bpy.ops.xray.generate(filepath=str(images[0]), seed=3)
    first = bpy.context.object
    assert bpy.ops.xray.mirror_back() == {"FINISHED"}
    second = bpy.context.object
    made = second["xray_settings"]
    assert (made["back"], made["seed"]) == ("mirrored", 3)
    assert first["xray_settings"]["back"] == "blended"
    assert second.location.x > first.location.x
    assert f"Info: {second.name} has a mirrored back" in capfd.readouterr().out
    with pytest.raises(RuntimeError, match="has a mirrored back already"):
        bpy.ops.xray.mirror_back()
    settings = part("xray_addon.settings").GenerateSettings
    second["xray_settings"] = settings("triposr").to_dict()
    with pytest.raises(RuntimeError, match="TripoSR cannot mirror the image on the back"):
        bpy.ops.xray.mirror_back()


def test_a_mesh_is_made_again_with_what_was_chosen_for_it(fake_runtime, images, panel, part, capfd):
    """A photo said how far away it was taken, and its mesh was set upright by itself."""
    photo = images[0].rename(images[0].with_name("photo.png"))
    bpy.ops.xray.generate(filepath=str(photo))
    first = bpy.context.object
    with pytest.raises(RuntimeError, match="set upright already"):
        bpy.ops.xray.set_upright()
    command = part("operators.generate.ops").command_line(first)
    assert "--distance=4.25 --upright=always" in command
    bpy.ops.xray.use_seed()
    own = panel.systems.xray
    assert (own.distance, own.upright) == (0.0, "auto")
    bpy.ops.xray.keep_layers()
    assert "Info: photo has its layers" in capfd.readouterr().out
    bpy.ops.xray.another_seed()
    second = bpy.context.object
    assert second.dimensions.z == pytest.approx(2 * (0.4 + 0.04 * 4.25), rel=0.01)
    assert second["xray_chosen"].to_dict() == {"distance": 4.25, "upright": "always"}
    bpy.ops.xray.use_seed()
    assert (own.distance, own.upright) == (0.0, "auto")
    # What a person changes is no longer the system's choice.
    second["xray_chosen"]["upright"] = "never"
    bpy.ops.xray.set_upright()
    third = bpy.context.object
    assert third["xray_settings"]["upright"] == "always"
    assert third["xray_chosen"].to_dict() == {"distance": 4.25}


def test_another_seed_honours_keep_and_result(fake_runtime, images, panel):
    bpy.ops.xray.generate(filepath=str(images[0]), height=2.0, smooth_angle=np.radians(30))
    panel.keep_layers, panel.height = True, 4.0
    bpy.ops.xray.another_seed(keep_camera=True)
    obj = bpy.context.object
    result = obj["xray_result"]
    # What the panel says, and where it says nothing, what the first mesh was made with.
    assert (result["height"], result["smooth_angle"]) == (4.0, 30.0)
    assert obj.dimensions.z == pytest.approx(4.0)
    assert obj["xray_layers"] is not None
    assert [other.type for other in bpy.data.objects].count("CAMERA") == 1


def test_layers_are_kept_afterwards_for_the_mesh_that_is_there(fake_runtime, images, part):
    bpy.context.scene.cursor.location = (5, 0, 0)
    bpy.ops.xray.generate(filepath=str(images[0]), height=6.0)
    obj = bpy.context.object
    before = [tuple(v.co) for v in obj.data.vertices]
    assert bpy.ops.xray.keep_layers(keep_camera=True) == {"FINISHED"}
    assert [tuple(v.co) for v in obj.data.vertices] == before
    assert bpy.context.object == obj
    layers = part("operators.layers.layers")
    collection = layers.layers_of(obj)
    collection.hide_viewport = False
    bpy.context.view_layer.update()
    points = [o.matrix_world @ v.co for o in collection.objects for v in o.data.vertices]
    # A ball of height 6 that stands on the floor at the cursor.
    away = np.linalg.norm(np.array(points) - (5, 0, 3), axis=1)
    assert np.median(away) == pytest.approx(3.0, abs=0.05)
    (camera,) = (other for other in bpy.data.objects if other.type == "CAMERA")
    assert tuple(camera.matrix_world.translation) == pytest.approx((5, -15, 3), abs=1e-3)
    with pytest.raises(RuntimeError, match="It has its layers"):
        bpy.ops.xray.keep_layers()


def test_undo_does_not_keep_layers_away(fake_runtime, images, part, run_tasks):
    jobs = part("operators.tasks.jobs")
    bpy.ops.xray.generate(filepath=str(images[0]))
    for title in ("Before", "Move"):
        bpy.context.object.location.x += 1
        bpy.ops.ed.undo_push(message=title)
    steps = part("operators.generate.generation").keep_layers_steps(bpy.context.object)
    task = jobs.submit(jobs.Task("Keep Layers", steps))
    run_tasks(until=lambda: "Layer 01 apple" in bpy.data.meshes)
    assert bpy.ops.ed.undo() == {"FINISHED"}
    assert "Layer 01 apple" not in bpy.data.meshes
    run_tasks()
    assert task.error is None
    layers = bpy.data.objects["apple"]["xray_layers"]
    assert [layer.name for layer in layers.objects] == ["Layer 01 apple", "Layer 02 apple"]


def test_layers_of_another_mesh_are_told(fake_runtime, images, capfd):
    bpy.ops.xray.generate(filepath=str(images[0]))
    bpy.context.object["xray_hits"] = [1, 2, 3]
    bpy.ops.xray.keep_layers()
    assert "layers, but of another mesh" in capfd.readouterr().out


def test_the_panel_takes_seed_and_settings_from_a_result(fake_runtime, images, panel):
    bpy.ops.xray.generate(filepath=str(images[0]), seed=3, margin=2.0, variation=0.5)
    assert panel.seed == 0
    assert bpy.ops.xray.use_seed() == {"FINISHED"}
    assert (panel.seed, panel.margin, panel.systems.xray.variation) == (3, 2.0, 0.5)


def test_the_command_line_makes_it_again(fake_runtime, images, part):
    bpy.ops.xray.generate(filepath=str(images[0]), seed=3)
    first = [tuple(v.co) for v in bpy.context.object.data.vertices]
    words = shlex.split(part("operators.generate.ops").command_line(bpy.context.object))
    assert words[:4] == ["blender", "-c", "xray", "generate"]
    out = images[0].with_name("again.blend")
    words[words.index("--out") + 1] = str(out)
    assert part("operators.command").main(words[3:]) == 0
    bpy.ops.wm.open_mainfile(filepath=str(out))
    assert [tuple(v.co) for v in bpy.data.objects["apple"].data.vertices] == first


def test_an_image_without_a_file_has_no_command_line(fake_runtime, xray):
    bpy.data.images.new("fig", 4, 4)
    bpy.ops.xray.generate(image="fig")
    with pytest.raises(RuntimeError, match="not saved in its own file"):
        bpy.ops.xray.copy_command()


def test_dropped_images_are_generated(part):
    handler = bpy.types.XRAY_FH_image
    assert handler.bl_import_operator == "xray.generate"
    assert ".png" in handler.bl_file_extensions.split(";")
