"""From an image to a mesh: operator, Python and the runtime's ways to fail."""

from __future__ import annotations

import sys

import bpy
import numpy as np
import pytest


@pytest.fixture
def image(tmp_path, part):
    path = tmp_path / "apple.png"
    part("xray_addon.files.png").write_png(path, np.full((8, 8, 3), 200, np.uint8))
    return path


@pytest.fixture
def settings(part):
    return part("xray_addon.settings").GenerateSettings


def geometry(obj) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (N, 3) and their colours (N, 4)."""
    vertices = np.empty(len(obj.data.vertices) * 3, np.float32)
    obj.data.vertices.foreach_get("co", vertices)
    colors = np.empty(len(obj.data.vertices) * 4, np.float32)
    obj.data.color_attributes["Color"].data.foreach_get("color_srgb", colors)
    return vertices.reshape(-1, 3), colors.reshape(-1, 4)


def test_a_mesh_at_the_cursor_named_after_the_image(fake_runtime, part, image, settings):
    bpy.context.scene.cursor.location = (1, 2, 3)
    obj = part("operators.generate.generation").generate_mesh(image, settings(seed=2))
    assert obj.name == "apple"
    assert tuple(obj.location) == (1, 2, 3)
    assert tuple(obj.rotation_euler) == (0, 0, 0)
    assert bpy.context.view_layer.objects.active == obj
    vertices, colors = geometry(obj)
    # A ball of radius 0.5 that stands on the cursor, its origin at its base.
    assert vertices[:, 2].min() == pytest.approx(0.0, abs=1e-6)
    assert vertices[:, 2].max() == pytest.approx(1.0)
    assert (vertices.min(axis=0) + vertices.max(axis=0))[:2] == pytest.approx(0.0, abs=1e-6)
    assert colors[:, :3].max() == pytest.approx(1.0, abs=0.01)


def test_beside_a_linked_collection_it_goes_to_the_scene(
    fake_runtime, part, image, settings, linked_collection
):
    linked_collection()
    obj = part("operators.generate.generation").generate_mesh(image, settings(), keep_camera=True)
    assert obj.users_collection == (bpy.context.scene.collection,)


def test_beside_a_collection_that_is_not_shown_it_goes_to_the_scene(
    fake_runtime, part, image, settings
):
    hidden = bpy.data.collections.new("Hidden")
    bpy.context.scene.collection.children.link(hidden)
    layer = bpy.context.view_layer.layer_collection.children["Hidden"]
    bpy.context.view_layer.active_layer_collection = layer
    hidden.hide_viewport = True
    bpy.context.view_layer.update()
    obj = part("operators.generate.generation").generate_mesh(image, settings())
    bpy.context.view_layer.update()
    assert obj.visible_get()


def test_how_it_was_made_stays_with_it(fake_runtime, part, image, settings):
    obj = part("operators.generate.generation").generate_mesh(image, settings(seed=2))
    assert obj["xray_settings"].to_dict() == settings(seed=2).to_dict()
    assert obj["xray_inputs"].to_dict() == {"image": str(image), "mask": "", "category": ""}
    assert obj["xray_hits"][0] > 0


def test_the_operator_does_what_the_function_does(fake_runtime, part, image, settings):
    made = part("operators.generate.generation").generate_mesh(image, settings(seed=1))
    assert bpy.ops.xray.generate(filepath=str(image), seed=1) == {"FINISHED"}
    again = bpy.context.object
    assert again != made
    for a, b in zip(geometry(made), geometry(again), strict=True):
        assert np.array_equal(a, b)


def test_an_image_of_the_file_works_as_well(fake_runtime, part, settings):
    image = bpy.data.images.new("pear", 4, 4)
    obj = part("operators.generate.generation").generate_mesh(image, settings())
    assert (obj.name, obj["xray_inputs"]["image"]) == ("pear", "pear")
    assert bpy.ops.xray.generate(image="pear") == {"FINISHED"}


def test_the_view_can_be_kept(fake_runtime, part, image, settings):
    bpy.context.scene.cursor.location = (5, 0, 0)
    part("operators.generate.generation").generate_mesh(image, settings(), keep_camera=True)
    (camera,) = (obj for obj in bpy.data.objects if obj.type == "CAMERA")
    assert tuple(camera.matrix_world.translation) == pytest.approx((5, -1.5, 0.3))


def test_the_layers_can_be_kept(fake_runtime, part, image, settings):
    bpy.context.scene.cursor.location = (5, 0, 0)
    obj = part("operators.generate.generation").generate_mesh(image, settings(), keep_layers=True)
    module = part("operators.layers.layers")
    collection = module.layers_of(obj)
    layers = module.layer_objects(collection)
    assert [layer["xray_layer"] for layer in layers] == [0, 1]
    assert collection.hide_viewport
    assert module.layers_of(layers[1]) == collection
    collection.hide_viewport = False
    bpy.context.view_layer.update()
    points = np.array([layers[0].matrix_world @ v.co for v in layers[0].data.vertices])
    assert np.allclose(np.linalg.norm(points - (5, 0, 0.3), axis=1), 0.3, atol=0.01)
    assert points[:, 1].max() < 0.1  # the side that the viewer sees


def test_a_mesh_with_its_layers_is_rebuilt_in_place(fake_runtime, part, image, settings):
    bpy.context.scene.cursor.location = (5, 0, 0)
    obj = part("operators.generate.generation").generate_mesh(image, settings(), keep_layers=True)
    material = obj.data.materials[0]
    count, faces = len(bpy.data.meshes), len(obj.data.polygons)
    assert bpy.ops.xray.rebuild() == {"FINISHED"}
    assert bpy.context.object == obj
    assert tuple(obj.location) == (5, 0, 0)
    # The new mesh is made of the hits, and has about as many faces as the old one, which is gone.
    assert len(obj.data.polygons) == pytest.approx(faces, rel=0.1)
    middle = (0, 0, 0.3)
    radius = np.linalg.norm([np.subtract(v.co, middle) for v in obj.data.vertices], axis=1)
    assert np.median(radius) == pytest.approx(0.3, abs=0.01)
    assert len(bpy.data.meshes) == count
    assert list(obj.data.materials) == [material]
    assert len(bpy.data.materials) == 3  # of the mesh and of two layers


def test_the_material_shows_the_colours(fake_runtime, part, image, settings):
    obj = part("operators.generate.generation").generate_mesh(image, settings())
    (material,) = obj.data.materials
    (node,) = (n for n in material.node_tree.nodes if n.bl_idname == "ShaderNodeVertexColor")
    assert node.layer_name in obj.data.color_attributes
    assert node.outputs["Color"].links[0].to_socket.name == "Base Color"


def test_a_generation_can_be_undone(fake_runtime, image):
    bpy.ops.ed.undo_push(message="Before")
    bpy.ops.xray.generate("EXEC_DEFAULT", True, filepath=str(image))
    assert len(bpy.data.meshes) == 1
    bpy.ops.ed.undo()
    assert len(bpy.data.meshes) == 0


def test_an_error_of_the_runtime_is_its_text(fake_runtime, image):
    bad = image.with_name("bad.png")
    image.rename(bad)
    with pytest.raises(RuntimeError, match=r"The image is bad\. Choose a good one\."):
        bpy.ops.xray.generate(filepath=str(bad))


def test_a_missing_image_says_so_before_anything_starts(fake_runtime, tmp_path):
    with pytest.raises(RuntimeError, match="There is no image"):
        bpy.ops.xray.generate(filepath=str(tmp_path / "gone.png"))
    with pytest.raises(RuntimeError, match="There is no image gone"):
        bpy.ops.xray.generate(image="gone")
    with pytest.raises(RuntimeError, match="needs an image"):
        bpy.ops.xray.generate()
    assert not fake_runtime.is_running()


def test_a_task_is_cancelled_in_the_runtime(fake_runtime, part, image, settings, run_tasks):
    slow = image.with_name("slow.png")
    image.rename(slow)
    jobs, generate = part("operators.tasks.jobs"), part("operators.generate.generation")
    task = jobs.submit(jobs.Task("Generate", generate.generate_steps(slow, settings())))
    run_tasks(until=lambda: task.progress.stage == "sample")
    jobs.cancel(task)
    run_tasks()
    assert task.state == "cancelled"
    assert len(bpy.data.objects) == 0
    # The process lives on and works for the next image.
    assert fake_runtime.is_running()
    slow.rename(image)
    assert generate.generate_mesh(image, settings()).name == "apple"


def test_a_result_reaches_the_file_that_is_open_by_then(
    fake_runtime, part, image, settings, run_tasks
):
    jobs, generate = part("operators.tasks.jobs"), part("operators.generate.generation")
    task = jobs.submit(jobs.Task("Generate", generate.generate_steps(image, settings())))
    jobs._tick()
    bpy.ops.wm.read_homefile(use_empty=True)
    run_tasks()
    assert [obj.name for obj in bpy.data.objects] == ["apple"]
    assert task.result.name == "apple"


@pytest.fixture
def pixels_only(xray):
    """An image of the file whose pixels are in no file of their own."""
    return bpy.data.images.new("pear", 4, 4)


def test_an_image_that_goes_meanwhile_keeps_its_mesh(
    fake_runtime, part, pixels_only, settings, run_tasks
):
    jobs, generate = part("operators.tasks.jobs"), part("operators.generate.generation")
    task = jobs.submit(jobs.Task("Generate", generate.generate_steps(pixels_only, settings())))
    run_tasks(until=lambda: task.progress.stage == "sample")
    bpy.ops.wm.read_homefile(use_empty=True)
    run_tasks()
    assert task.error is None
    obj = bpy.data.objects["pear"]
    assert obj["xray_inputs"]["image"] == "pear"
    # Made again from an image that is gone: it says which one.
    bpy.context.view_layer.objects.active = obj
    for again in (bpy.ops.xray.another_seed, bpy.ops.xray.keep_layers):
        with pytest.raises(RuntimeError, match="The image pear, which pear was made from"):
            again()


def test_an_image_that_goes_before_its_turn_is_missed(
    fake_runtime, part, pixels_only, settings, run_tasks
):
    jobs, generate = part("operators.tasks.jobs"), part("operators.generate.generation")
    task = jobs.submit(jobs.Task("Generate", generate.generate_steps(pixels_only, settings())))
    bpy.ops.wm.read_homefile(use_empty=True)
    run_tasks()
    assert (task.error.code, "pear" in task.error.message) == ("missing_image", True)


def test_an_image_with_a_file_is_found_again_in_another_file(
    fake_runtime, part, image, settings, run_tasks
):
    jobs, generate = part("operators.tasks.jobs"), part("operators.generate.generation")
    datablock = bpy.data.images.load(str(image))
    task = jobs.submit(jobs.Task("Generate", generate.generate_steps(datablock, settings())))
    bpy.ops.wm.read_homefile(use_empty=True)
    run_tasks()
    assert task.error is None
    obj = bpy.data.objects["apple"]
    assert (obj["xray_inputs"]["image"], generate.made_from(obj)[0].image) == ("apple.png", image)


def test_undo_while_the_mesh_is_built_builds_it_again(
    fake_runtime, part, image, settings, run_tasks
):
    jobs, generate = part("operators.tasks.jobs"), part("operators.generate.generation")
    bpy.ops.ed.undo_push(message="Before")
    bpy.ops.mesh.primitive_cube_add()
    bpy.ops.ed.undo_push(message="Cube")
    steps = generate.generate_steps(image, settings(), keep_layers=True)
    task = jobs.submit(jobs.Task("Generate", steps))
    run_tasks(until=lambda: "apple" in bpy.data.meshes)
    bpy.ops.ed.undo()
    assert "apple" not in bpy.data.meshes
    run_tasks()
    assert task.error is None
    names = sorted(obj.name for obj in bpy.data.objects)
    assert names == ["Layer 01 apple", "Layer 02 apple", "apple"]


def test_a_mesh_that_cannot_be_finished_is_not_lost(
    fake_runtime, part, image, settings, monkeypatch
):
    generate, errors = part("operators.generate.generation"), part("xray_addon.errors")

    def dies(_obj, result):
        yield part("operators.generate.adding").ADDING
        if result.topology == "quads":
            raise errors.XRayError("worker_died", "Blender quit.", "Choose fewer faces.")
        return 1.0

    monkeypatch.setattr(part("operators.generate.adding"), "finish_steps", dies)
    result = part("xray_addon.settings").ResultSettings(topology="quads")
    with pytest.raises(errors.XRayError, match="apple was added without the settings of Result"):
        generate.generate_mesh(image, settings(), result=result)
    assert [obj.name for obj in bpy.data.objects] == ["apple"]
    assert len(bpy.data.meshes) == 1
    assert "xray_settings" in bpy.data.objects["apple"]


def test_a_mesh_that_is_being_finished_is_cancelled_without_a_trace(
    fake_runtime, part, image, settings, monkeypatch, run_tasks
):
    jobs, adding = part("operators.tasks.jobs"), part("operators.generate.adding")

    def endless(_obj, _result):
        while True:
            yield adding.ADDING

    monkeypatch.setattr(adding, "finish_steps", endless)
    generate = part("operators.generate.generation")
    task = jobs.submit(jobs.Task("Generate", generate.generate_steps(image, settings())))
    run_tasks(until=lambda: "apple" in bpy.data.objects)
    jobs.cancel(task)
    run_tasks()
    assert task.state == "cancelled"
    assert not bpy.data.objects
    assert not bpy.data.meshes


def test_a_mesh_that_arrives_leaves_edit_mode_alone(
    fake_runtime, part, image, settings, run_tasks, cube
):
    jobs, generate = part("operators.tasks.jobs"), part("operators.generate.generation")
    task = jobs.submit(jobs.Task("Generate", generate.generate_steps(image, settings())))
    run_tasks(until=lambda: task.progress.stage == "sample")
    bpy.ops.object.mode_set(mode="EDIT")
    run_tasks()
    assert bpy.context.mode == "EDIT_MESH"
    assert [obj.name for obj in bpy.context.selected_objects] == ["Cube"]
    assert bpy.context.view_layer.objects.active == cube
    bpy.ops.object.mode_set(mode="OBJECT")
    assert "apple" in bpy.context.view_layer.objects


def test_a_runtime_that_dies_says_so_and_the_next_one_works(fake_runtime, part, image, settings):
    service = fake_runtime
    whole = service.command
    service.command = service.Command(sys.executable, ("-c", "raise SystemExit(3)"))
    with pytest.raises(part("xray_addon.errors").XRayError) as caught:
        part("operators.generate.generation").generate_mesh(image, settings())
    assert caught.value.code == "runtime_died"
    assert "Traceback" not in str(caught.value)
    service.stop()
    service.command = whole
    assert part("operators.generate.generation").generate_mesh(image, settings()).name == "apple"


def test_without_a_runtime_the_button_is_grey(xray, tmp_path):
    addon = bpy.context.preferences.addons[xray.__name__]
    addon.preferences.runtime_folder = str(tmp_path / "nothing here")
    assert not bpy.ops.xray.generate.poll()
    with pytest.raises(RuntimeError, match="Install the runtime first"):
        bpy.ops.xray.generate(filepath="x.png")


def test_the_runtimes_modules_stay_out_of_blender(fake_runtime, xray, image):
    bpy.ops.xray.generate(filepath=str(image))
    assert "torch" not in sys.modules
    assert f"{xray.__name__}.runtime" not in sys.modules


# What an object of a file from before systems had settings of their own keeps.
OLDER = {
    "generator": "xray",
    "checkpoint": "",
    "steps": 2,
    "seed": 1,
    "freedom": 0.7,
    "device": "auto",
    "remove_background": "auto",
    "margin": 0.0,
    "grid_resolution": 64,
    "density_threshold": 25.0,
    "texture_size": 0,
    "batch_order": "mended",
}


@pytest.mark.parametrize(
    ("system", "own"),
    [
        ("xray", {"steps": 2, "variation": 0.7}),
        ("triposr", {"grid_resolution": 64, "density_threshold": 25.0, "texture_size": 0}),
        ("xray-paper", {"steps": 2, "batch_order": "fixed"}),
    ],
)
def test_settings_in_objects_of_older_files_are_read(xray, part, image, system, own):
    obj = bpy.data.objects.new("old", None)
    obj["xray_settings"], obj["xray_image"] = OLDER | {"generator": system}, str(image)
    inputs, settings = part("operators.generate.generation").made_from(obj)
    assert (inputs.image, inputs.mask, inputs.category) == (image, None, "")
    found = settings.to_dict()
    assert (found["generator"], found["seed"]) == (system, 1)
    assert {name: found[name] for name in own} == pytest.approx(own)
    assert set(found) == set(settings.names())


def test_an_older_mesh_is_made_again(fake_runtime, part, image):
    obj = bpy.data.objects.new("old", bpy.data.meshes.new("old"))
    bpy.context.collection.objects.link(obj)
    obj["xray_settings"], obj["xray_image"] = OLDER, str(image)
    obj["xray_result"] = part("xray_addon.settings").ResultSettings().to_dict()
    bpy.context.view_layer.objects.active = obj
    assert bpy.ops.xray.another_seed() == {"FINISHED"}
    assert bpy.context.object["xray_settings"]["seed"] == 2
