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


def test_again_is_the_same_and_another_seed_is_the_next(fake_runtime, images):
    bpy.ops.xray.generate(filepath=str(images[0]), seed=3)
    first = bpy.context.object
    assert bpy.ops.xray.regenerate() == {"FINISHED"}
    same = bpy.context.object
    assert same != first
    assert same["xray_settings"].to_dict() == first["xray_settings"].to_dict()
    assert [v.co for v in same.data.vertices] == [v.co for v in first.data.vertices]
    assert same.location.x > first.location.x
    bpy.ops.xray.regenerate(another_seed=True)
    assert bpy.context.object["xray_settings"]["seed"] == 4


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
