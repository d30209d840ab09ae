"""Objects to omages and back, in Blender."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

bpy = pytest.importorskip("bpy")


@pytest.fixture
def cube(part):
    """A cube with UVs, whose material is red, half metallic and rough."""
    bpy.ops.mesh.primitive_cube_add(size=2)
    obj = bpy.context.object
    material = bpy.data.materials.new("Red")
    tree = part("operators.convert.materials").with_nodes(material)
    shader = tree.nodes["Principled BSDF"]
    shader.inputs["Base Color"].default_value = (0.5, 0.02, 0.02, 1)
    shader.inputs["Metallic"].default_value = 0.5
    shader.inputs["Roughness"].default_value = 0.25
    obj.data.materials.append(material)
    return obj


def select(*objects):
    bpy.ops.object.select_all(action="DESELECT")
    for obj in objects:
        obj.select_set(True)
    bpy.context.view_layer.objects.active = objects[0]


def encoded(part, *objects, **settings):
    made = part("xray_addon.settings.omage").OmageSettings(**{"resolution": 64, **settings})
    return part("operators.omage.encoding").encode_objects(list(objects), made)


def test_an_object_becomes_an_omage_with_its_material(cube, part):
    omage, report = encoded(part, cube)
    assert report.unwrapped == ""
    inside = omage.occupied
    # The default cube's UVs are one cross.
    assert report.charts == omage.patches.max() == 1
    np.testing.assert_allclose(omage.albedo[inside].mean(axis=0), (0.5, 0.02, 0.02), atol=2e-3)
    np.testing.assert_allclose(omage.metallic[inside], 0.5, atol=1e-3)
    np.testing.assert_allclose(omage.roughness[inside], 0.25, atol=1e-3)
    assert np.abs(omage.position[inside]).max() == pytest.approx(1, abs=1e-3)


def test_a_mesh_without_uvs_is_unwrapped_and_left_as_it_is(xray, part):
    bpy.ops.mesh.primitive_ico_sphere_add(subdivisions=3, calc_uvs=False)
    obj = bpy.context.object
    omage, report = encoded(part, obj)
    assert "none" in report.unwrapped or "no place" in report.unwrapped
    assert not obj.data.uv_layers
    radius = np.linalg.norm(omage.position[omage.occupied], axis=1)
    np.testing.assert_allclose(radius, 1, atol=0.02)
    assert report.dropped_area < 0.01
    assert len(bpy.data.scenes) == 1


def test_factors_come_from_channels_of_images(cube, part):
    image = bpy.data.images.new("orm", 2, 2)
    image.colorspace_settings.name = "Non-Color"
    image.pixels.foreach_set(np.tile(np.float32((0, 0.6, 0.2, 1)), 4))
    tree = cube.data.materials[0].node_tree
    texture, split, times = (
        tree.nodes.new(kind)
        for kind in ("ShaderNodeTexImage", "ShaderNodeSeparateColor", "ShaderNodeMath")
    )
    texture.image, times.operation = image, "MULTIPLY"
    times.inputs[1].default_value = 0.5
    shader = tree.nodes["Principled BSDF"]
    tree.links.new(texture.outputs["Color"], split.inputs["Color"])
    tree.links.new(split.outputs["Blue"], shader.inputs["Metallic"])
    tree.links.new(split.outputs["Green"], times.inputs[0])
    tree.links.new(times.outputs[0], shader.inputs["Roughness"])
    omage, _ = encoded(part, cube)
    np.testing.assert_allclose(omage.metallic[omage.occupied], 0.2, atol=0.01)
    np.testing.assert_allclose(omage.roughness[omage.occupied], 0.3, atol=0.01)


def test_factors_that_are_computed_are_baked(cube, part):
    tree = cube.data.materials[0].node_tree
    ramp = tree.nodes.new("ShaderNodeValToRGB")
    ramp.color_ramp.elements[0].color = ramp.color_ramp.elements[1].color = (0.7, 0.7, 0.7, 1)
    tree.links.new(ramp.outputs["Color"], tree.nodes["Principled BSDF"].inputs["Roughness"])
    omage, _ = encoded(part, cube, bake_size=64)
    np.testing.assert_allclose(omage.roughness[omage.occupied], 0.7, atol=0.02)
    np.testing.assert_allclose(omage.metallic[omage.occupied], 0.5, atol=0.02)
    np.testing.assert_allclose(omage.albedo[omage.occupied][:, 0].mean(), 0.5, atol=0.02)


def test_the_operators_give_what_the_functions_give(cube, part, tmp_path):
    omage, _ = encoded(part, cube, resolution=128, downsample=64)
    select(cube)
    path = tmp_path / "cube.npz"
    assert bpy.ops.xray.object_to_omage(
        resolution=128, downsample=64, filepath=str(path), pictures=True
    ) == {"FINISHED"}
    written = part("xray_addon.omage").Omage.load(path)
    np.testing.assert_array_equal(written.values, omage.to_uint16())
    assert (tmp_path / "cube" / "geometry.png").is_file()
    for source in (path, tmp_path / "cube" / "geometry.png"):
        assert bpy.ops.xray.omage_to_object(source="file", filepath=str(source)) == {"FINISHED"}
        obj = bpy.context.object
        assert obj is not cube
        assert len(obj.data.polygons) == len(omage.decode().faces)
        assert obj.data.uv_layers
        shader = obj.data.materials[0].node_tree.nodes["Principled BSDF"]
        for name in ("Base Color", "Metallic", "Roughness"):
            assert shader.inputs[name].is_linked
        sets = np.empty(len(obj.data.polygons), np.int32)
        obj.data.attributes[".sculpt_face_set"].data.foreach_get("value", sets)
        assert set(sets.tolist()) == {1}


def test_the_mesh_of_an_omage_stands_beside_its_object_and_is_as_large(cube):
    cube.location, cube.scale = (3, 1, 0), (2, 0.5, 0.5)
    select(cube)
    bpy.ops.xray.object_to_omage(resolution=64)
    assert bpy.ops.xray.omage_to_object() == {"FINISHED"}
    bpy.context.view_layer.update()
    made = bpy.context.object
    np.testing.assert_allclose(made.dimensions, cube.dimensions, rtol=1e-3)
    assert made.location.x - cube.location.x >= 4.0, "they overlap"
    np.testing.assert_allclose(made.location[1:], cube.location[1:], atol=1e-5)


def test_what_is_painted_is_in_the_mesh(cube, part, linked_collection):
    select(cube)
    bpy.ops.xray.object_to_omage(resolution=64)
    editor = part("operators.omage.editor")
    images = editor.omage_images(cube.name)
    assert set(images) == set(part("xray_addon.omage.pictures").VIEWS)
    pixels = np.empty(64 * 64 * 4, np.float32)
    images["albedo"].pixels.foreach_get(pixels)
    painted = pixels.reshape(64, 64, 4)
    painted[:32, :, :3] = 0, 1, 0
    images["albedo"].pixels.foreach_set(painted.reshape(-1))
    linked_collection()
    assert bpy.ops.xray.omage_to_object() == {"FINISHED"}
    omage = editor.read_shown(cube.name)
    below = np.zeros((64, 64), bool)
    below[:32] = True
    assert np.abs(omage.albedo[omage.occupied & below] - (0, 1, 0)).max() < 1e-6
    material = bpy.context.object.data.materials[0]
    texture = next(
        node.image
        for node in material.node_tree.nodes
        if node.bl_idname == "ShaderNodeTexImage"
        and any(link.to_socket.name == "Base Color" for link in node.outputs["Color"].links)
    )
    shown = np.empty(64 * 64 * 4, np.float32)
    texture.pixels.foreach_get(shown)
    green = shown.reshape(64, 64, 4)[..., 1] > 0.9
    assert green[omage.occupied & below].all()
    assert not green[omage.occupied & ~below].any()


def test_images_keep_the_omage_when_the_file_is_saved(cube, part, tmp_path):
    editor = part("operators.omage.editor")
    select(cube)
    other = bpy.data.images.new(f"{cube.name} albedo", 8, 8)
    # The images of the same name get the new content, whatever their size was.
    for resolution in (32, 64):
        bpy.ops.xray.object_to_omage(resolution=resolution)
    assert len(editor.omage_images(cube.name)) == 6
    assert set(bpy.data.images) == {other, *editor.omage_images(cube.name).values()}
    omage, _ = encoded(part, cube)
    before = editor.read_shown(cube.name)
    np.testing.assert_allclose(before.values, omage.values, atol=1e-5)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "a.blend"))
    np.testing.assert_array_equal(editor.read_shown("Cube").values, before.values)
    # What is painted is saved too, again in little space.
    image = editor.omage_images("Cube")["albedo"]
    image.pixels.foreach_set(np.tile(np.float32((0.2, 0.4, 0.6, 1)), 64 * 64))
    bpy.ops.wm.save_mainfile()
    assert (image.file_format, len(image.packed_file.data) < 16 * 64 * 64) == ("PNG", True)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "a.blend"))
    painted = editor.read_shown("Cube")
    shown = painted.albedo[painted.occupied]
    np.testing.assert_allclose(shown, np.broadcast_to((0.2, 0.4, 0.6), shown.shape), atol=1e-5)


def test_an_omage_adds_little_to_the_file(part, tmp_path):
    path, size = tmp_path / "a.blend", []
    for _ in range(2):
        bpy.ops.wm.save_as_mainfile(filepath=str(path))
        size.append(path.stat().st_size)
        bpy.ops.mesh.primitive_uv_sphere_add(segments=64, ring_count=32)
        select(bpy.context.object)
        bpy.ops.xray.object_to_omage(resolution=512)
    # As single-precision floats the six images took 25 MB.
    assert size[1] - size[0] < 4e6


def test_several_objects_become_one_omage(cube, part):
    bpy.ops.mesh.primitive_cube_add(size=1, location=(4, 0, 0))
    _, report = encoded(part, cube, bpy.context.object)
    assert report.charts == 2
    assert report.unwrapped == ""
    assert report.centre[0] == pytest.approx(1.75)


def test_what_cannot_be_done_is_said(cube, part, tmp_path):
    with pytest.raises(RuntimeError, match="No omage"):
        bpy.ops.xray.omage_to_object()
    with pytest.raises(RuntimeError, match="no file"):
        bpy.ops.xray.omage_to_object(source="file", filepath=str(tmp_path / "none.npz"))
    select(cube)
    with pytest.raises(RuntimeError, match="npz"):
        bpy.ops.xray.object_to_omage(resolution=64, filepath=str(tmp_path / "a.png"))
    with pytest.raises(RuntimeError, match="downsample"):
        bpy.ops.xray.object_to_omage(resolution=64, downsample=128)
    np.savez(tmp_path / "empty.npz", np.zeros((8, 8, 12), np.uint16))
    with pytest.raises(RuntimeError, match="no face"):
        bpy.ops.xray.omage_to_object(source="file", filepath=str(tmp_path / "empty.npz"))
    bpy.data.images.remove(
        part("operators.omage.editor").show_omage(encoded(part, cube)[0], "Cube")["normal"]
    )
    with pytest.raises(RuntimeError, match="normal"):
        bpy.ops.xray.omage_to_object()
    assert math.isclose(len(bpy.data.objects), 1)


@pytest.fixture
def command(part, capfd):
    """Run ``blender -c xray omage`` with --json; the exit code and what was answered."""

    def run(*arguments):
        capfd.readouterr()
        code = part("operators.command").main(["omage", *map(str, arguments), "--json"])
        return code, json.loads(capfd.readouterr()[0])

    return run


def test_the_command_writes_an_omage_for_each_file_and_a_mesh_for_an_omage(
    cube, command, part, tmp_path
):
    meshes, out = tmp_path / "meshes", tmp_path / "out"
    meshes.mkdir()
    bpy.ops.export_scene.gltf(filepath=str(meshes / "cube.glb"))
    (meshes / "broken.glb").write_bytes(b"no mesh")
    code, answer = command(meshes, out, "--resolution", 128, "--downsample", 64, "--png")
    assert code == 1
    assert [item["uid"] for item in answer["failed"]] == ["broken"]
    assert [item["uid"] for item in answer["written"]] == ["cube"]
    omage = part("xray_addon.omage").Omage.load(out / "cube.npz")
    assert omage.resolution == 64
    np.testing.assert_allclose(omage.metallic[omage.occupied], 0.5, atol=0.01)
    assert (out / "cube" / "albedo.png").is_file()
    for source in (out / "cube.npz", out / "cube"):
        code, answer = command("--decode", source, "--out", tmp_path / "again.glb", "--stitch")
        assert code == 0
        part("operators.convert.mesh_files").open_alone(tmp_path / "again.glb")
        shader = bpy.data.materials[0].node_tree.nodes["Principled BSDF"]
        assert shader.inputs["Roughness"].is_linked
        size = np.ptp([v.co for v in bpy.context.scene.objects[0].data.vertices], axis=0)
        np.testing.assert_allclose(size, 2, atol=1e-3)


def test_the_command_names_what_is_wrong_with_it(command, tmp_path):
    for arguments in ((), (tmp_path,), (tmp_path, "out", "--decode", "a.npz")):
        code, answer = command(*arguments)
        assert code == 2
        assert answer["error"]["code"] == "bad_settings"
    code, answer = command("--decode", tmp_path / "none.npz", "--out", tmp_path / "a.glb")
    assert (code, answer["error"]["code"]) == (2, "missing_file")
    assert not (tmp_path / "a.glb").exists()


@pytest.fixture
def answered(part, monkeypatch):
    """Material Only without a runtime: what it was asked, and an answer in one colour."""
    asked = []

    def generate_steps(inputs, settings):
        omage = part("xray_addon.omage").Omage.load(settings.geometry)
        values = omage.channels(0, 12)
        values[..., 7:] = np.where(omage.occupied[..., None], (0.1, 0.7, 0.1, 0.9, 0.3), 0)
        surface = part("xray_addon.omage").Omage(values).decode()
        asked.append((inputs, settings, omage))
        yield part("xray_addon.progress").Progress("material", 1, 2)
        camera = part("xray_addon.camera").Camera.look_at((0, -2, 0))
        return part("xray_addon.generated").Generated(surface, None, camera)

    monkeypatch.setattr(part("operators.runtime.service"), "generate_steps", generate_steps)
    monkeypatch.setattr(part("operators.runtime.service"), "is_available", lambda: True)
    return asked


def test_a_mesh_gets_a_material_of_its_category(cube, part, answered):
    select(cube)
    before = [layer.name for layer in cube.data.uv_layers]
    assert bpy.ops.xray.omage_material(category="chair", material_steps=2) == {"FINISHED"}
    ((inputs, settings, omage),) = answered
    assert inputs.category == "chair"
    assert (settings.generator, settings.material_steps) == ("omages", 2)
    assert omage.resolution == 64
    assert [layer.name for layer in cube.data.uv_layers] == [*before, "Omage"]
    material = cube.data.materials[0]
    assert material.name == "Cube Omage"
    # What the mesh now looks like, through its new UV map.
    cube.data.uv_layers["Omage"].active_render = True
    seen, _ = encoded(part, cube)
    inside = seen.occupied
    np.testing.assert_allclose(
        seen.albedo[inside], np.broadcast_to((0.1, 0.7, 0.1), (inside.sum(), 3)), atol=0.02
    )
    np.testing.assert_allclose(seen.metallic[inside], 0.9, atol=0.01)


def test_a_material_waits_until_its_mesh_is_out_of_edit_mode(cube, part, answered, run_tasks):
    select(cube)
    settings = part("xray_addon.systems.omages").SYSTEM.settings()
    steps = part("operators.omage.material").material_steps(cube, "chair", settings)
    next(steps)
    bpy.ops.object.mode_set(mode="EDIT")
    for _ in range(3):
        assert "leave" in next(steps).message
    bpy.ops.object.mode_set(mode="OBJECT")
    assert part("operators.tasks.jobs").run(steps) == cube
    assert cube.data.materials[0].name == "Cube Omage"


def test_material_only_says_what_it_cannot_do(cube, part, answered):
    select(cube)
    with pytest.raises(RuntimeError, match="chair"):
        bpy.ops.xray.omage_material(category="chiar")
    cube.modifiers.new("Subdivision", "SUBSURF")
    with pytest.raises(RuntimeError, match="modifiers"):
        bpy.ops.xray.omage_material(category="chair")
    assert not answered
    assert "Omage" not in cube.data.uv_layers
