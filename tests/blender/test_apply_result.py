"""The settings of the result on a mesh that was generated before, and their presets."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
import pytest
from mathutils import Matrix


@pytest.fixture
def settings(part):
    return part("xray_addon.settings").ResultSettings


@pytest.fixture
def obj(fake_runtime, part, tmp_path):
    """A generated ball with its layers."""
    path = tmp_path / "apple.png"
    part("xray_addon.files.png").write_png(path, np.full((8, 8, 3), 200, np.uint8))
    made = part("operators.generate.generation").generate_mesh(
        path, part("xray_addon.settings").GenerateSettings(), keep_layers=True
    )
    fake_runtime.stop()
    fake_runtime.command = fake_runtime.Command("/no/python", ())  # no model can run
    return made


def sides(obj) -> set[int]:
    return {len(polygon.vertices) for polygon in obj.data.polygons}


def test_quads_are_made_of_a_mesh_without_the_model(obj, settings):
    obj.location = (3, 0, 0)
    assert bpy.ops.xray.apply_result(topology="quads", target_faces=600) == {"FINISHED"}
    assert bpy.context.object == obj
    assert sides(obj) == {4}
    assert len(obj.data.polygons) == pytest.approx(600, rel=0.2)
    assert tuple(obj.location) == (3, 0, 0)
    assert settings.from_dict(obj["xray_result"].to_dict()) == settings(
        topology="quads", target_faces=600
    )
    assert obj.data.name == "apple"
    assert not [mesh.name for mesh in bpy.data.meshes if not mesh.users]


def test_a_texture_is_made_of_the_colours(obj):
    (material,) = obj.data.materials
    assert material.name == "apple"
    material.name = "Skin"
    for _ in range(2):
        assert bpy.ops.xray.apply_result(
            topology="quads", target_faces=300, color="texture", bake_size=64
        ) == {"FINISHED"}
        assert [each.name for each in obj.data.materials] == ["Skin"]
        assert [each.name for each in bpy.data.materials if not each.users] == []
    nodes = obj.data.materials[0].node_tree.nodes
    (image,) = (node.image for node in nodes if node.type == "TEX_IMAGE")
    assert image.size[:] == (64, 64)
    pixels = np.empty(64 * 64 * 4, np.float32)
    image.pixels.foreach_get(pixels)
    assert np.ptp(pixels.reshape(-1, 4)[:, 0]) > 0.5
    assert [layer.name for layer in obj.data.uv_layers] == ["UVMap"]


def test_the_panels_settings_are_the_buttons(obj, part):
    panel = bpy.context.scene.xray.generate
    panel.symmetry, panel.target_faces = "x", 200
    menu = part("panels.menus").XRAY_MT_generate
    drawn = {}

    class Layout:
        def operator(self, name, **_):
            drawn[name] = type("Properties", (), {})()
            return drawn[name]

        def separator(self):
            pass

        def menu(self, _name):
            pass

    menu.draw(type("Menu", (), {"layout": Layout()})(), bpy.context)
    assert drawn["xray.apply_result"].symmetry == "x"
    assert bpy.ops.xray.apply_result(symmetry="x", target_faces=200) == {"FINISHED"}
    positions = np.array([tuple(vertex.co) for vertex in obj.data.vertices])
    assert len(obj.data.polygons) <= 200
    assert np.isclose(positions[:, 0].max(), -positions[:, 0].min(), atol=0.02)


def test_modifiers_and_other_users_of_the_mesh_are_not_touched(obj):
    other = bpy.data.objects.new("Other", obj.data)
    bpy.context.collection.objects.link(other)
    obj.modifiers.new("Array", "ARRAY").count = 3
    before = len(other.data.polygons)
    assert bpy.ops.xray.apply_result(topology="quads", target_faces=300) == {"FINISHED"}
    assert len(other.data.polygons) == before
    assert len(obj.data.polygons) == pytest.approx(300, rel=0.3)  # not three times as many
    assert [modifier.name for modifier in obj.modifiers] == ["Array"]


def test_the_height_is_the_objects_and_layers_grow_with_it(obj, part):
    layers = part("operators.layers.layers")
    collection = layers.layers_of(obj)
    obj.scale = (2, 2, 2)
    bpy.context.view_layer.update()
    before = grown(layers.layer_objects(collection)[0])
    height = obj.dimensions.z
    assert bpy.ops.xray.apply_result(height=6.0) == {"FINISHED"}
    bpy.context.view_layer.update()
    assert obj.dimensions.z == pytest.approx(6.0, rel=1e-4)
    after = grown(layers.layer_objects(collection)[0])
    assert after / before == pytest.approx(6.0 / height, rel=1e-4)
    assert bpy.ops.xray.apply_result(height=3.0) == {"FINISHED"}
    bpy.context.view_layer.update()
    assert obj.dimensions.z == pytest.approx(3.0, rel=1e-4)


def grown(layer):
    """The scale of a layer's mesh in the space of the mesh that it belongs to."""
    return (layer.matrix_parent_inverse @ layer.matrix_basis).to_scale().x


def test_the_height_is_that_in_the_scene(obj):
    parent = bpy.data.objects.new("Parent", None)
    bpy.context.collection.objects.link(parent)
    parent.scale = (2, 2, 2)
    obj.parent, obj.rotation_euler.x = parent, np.pi / 2
    for vertex in obj.data.vertices:
        vertex.co.y *= 3
    bpy.context.view_layer.update()
    assert bpy.ops.xray.apply_result(height=1.5) == {"FINISHED"}
    bpy.context.view_layer.update()
    across = [(obj.matrix_world @ vertex.co).z for vertex in obj.data.vertices]
    assert np.ptp(across) == pytest.approx(1.5, rel=1e-4)


def test_shape_keys_grow_with_the_mesh(obj):
    for name in ("Basis", "Smile"):
        obj.shape_key_add(name=name)
    assert bpy.ops.xray.apply_result(height=5.0) == {"FINISHED"}
    bpy.context.view_layer.update()
    assert obj.dimensions.z == pytest.approx(5.0, rel=1e-4)


def test_an_asset_has_its_preview(obj):
    assert bpy.ops.xray.apply_result(asset=True) == {"FINISHED"}
    assert obj.asset_data.description
    assert np.ptp(np.array(obj.preview.image_pixels_float)) > 0


def test_it_needs_a_generated_mesh_in_object_mode(obj, cube):
    assert not bpy.ops.xray.apply_result.poll()
    bpy.context.view_layer.objects.active = obj
    assert bpy.ops.xray.apply_result.poll()
    bpy.ops.object.mode_set(mode="EDIT")
    assert not bpy.ops.xray.apply_result.poll()


def test_an_object_that_is_removed_meanwhile_is_an_error(obj, part, settings):
    steps = part("operators.generate.ops_result").apply_steps(obj, settings(topology="quads"))
    next(steps)
    bpy.data.objects.remove(obj)
    with pytest.raises(part("xray_addon.errors").XRayError, match="apple was removed"):
        part("operators.tasks.jobs").run(steps)
    assert not [mesh.name for mesh in bpy.data.meshes if not mesh.users and mesh.name != "apple"]


def test_undo_does_not_stop_the_work(obj, cube, part, settings):
    """Undo replaces all datablocks, and removes the half-made mesh."""
    bpy.context.view_layer.objects.active = obj
    layers = part("operators.layers.layers")
    work = (
        lambda one: part("operators.generate.ops_result").apply_steps(
            one, settings(target_faces=200)
        ),
        lambda one: layers.rebuild_steps(layers.layers_of(one)),
    )
    for start in work:
        bpy.ops.ed.undo_push(message="Before")
        bpy.data.objects["Cube"].location.x += 1
        bpy.ops.ed.undo_push(message="Move")
        steps = start(bpy.data.objects["apple"])
        for _ in range(2):
            next(steps)
        assert bpy.ops.ed.undo() == {"FINISHED"}
        assert part("operators.tasks.jobs").run(steps) == bpy.data.objects["apple"]
        assert not [mesh.name for mesh in bpy.data.meshes if not mesh.users]


def test_another_object_of_the_same_name_stays_as_it_is(obj, cube, part, settings):
    steps = part("operators.generate.ops_result").apply_steps(obj, settings(target_faces=200))
    next(steps)
    obj.name, cube.name = "Renamed", "apple"
    before = cube.data
    assert part("operators.tasks.jobs").run(steps) == obj
    assert len(obj.data.polygons) <= 200
    assert cube.data == before


@pytest.mark.parametrize("change", ["scale", "origin", "rotation"])
def test_a_rebuilt_mesh_lies_on_its_layers(obj, part, change):
    """Also after operators that move the mesh's data: Blender moves the layers against it."""
    obj.scale, obj.rotation_euler.z = (2, 2, 2), 0.5
    for other in bpy.context.view_layer.objects:
        other.select_set(other == obj)
    bpy.context.view_layer.update()
    before = bounds(obj)
    if change == "origin":
        assert bpy.ops.object.origin_set(type="ORIGIN_GEOMETRY") == {"FINISHED"}
    else:
        options = {"location": False, "rotation": False, "scale": False, change: True}
        assert bpy.ops.object.transform_apply(**options) == {"FINISHED"}
    assert bpy.ops.xray.rebuild() == {"FINISHED"}
    bpy.context.view_layer.update()
    assert np.allclose(bounds(obj), before, atol=0.1)
    # So do the layers after a change of height.
    assert bpy.ops.xray.apply_result(height=1.0) == {"FINISHED"}
    assert bpy.ops.xray.rebuild() == {"FINISHED"}
    bpy.context.view_layer.update()
    assert obj.dimensions.z == pytest.approx(1.0, rel=0.1)


def test_layers_of_an_older_file_are_on_their_mesh(obj, part):
    layers = obj["xray_layers"]
    frame = [np.array(layer.matrix_parent_inverse) for layer in layers.objects]
    shift = frame[0][:3, 3].tolist()
    obj["xray_frame"] = {"scale": 1.0, "shift": shift}
    for layer in layers.objects:
        layer.matrix_parent_inverse, layer.location = Matrix(), shift
        del layer["xray_placed"]
    layers.xray.visible = True
    placed = [
        np.array(layer.matrix_parent_inverse @ layer.matrix_basis) for layer in layers.objects
    ]
    assert np.allclose(placed, frame, atol=1e-6)


def bounds(obj):
    """(2, 3) in the scene."""
    corners = np.array([tuple(obj.matrix_world @ vertex.co) for vertex in obj.data.vertices])
    return np.array([corners.min(axis=0), corners.max(axis=0)])


def test_of_two_objects_with_the_same_layers_the_active_one_is_rebuilt(obj, part):
    assert bpy.ops.xray.apply_result(topology="quads", target_faces=300) == {"FINISHED"}
    other = obj.copy()
    bpy.context.collection.objects.link(other)
    bpy.context.view_layer.objects.active = other
    before = obj.data
    assert bpy.ops.xray.rebuild(target_faces=100) == {"FINISHED"}
    assert obj.data == before
    assert len(other.data.polygons) < 200
    other["xray_layers"].xray.visible = True
    assert other.hide_get()
    assert not obj.hide_get()


def test_a_rebuild_replaces_the_mesh_when_all_is_ready_and_nobody_edits_it(obj, part):
    layers = part("operators.layers.layers")
    assert bpy.ops.xray.apply_result(topology="quads", target_faces=300) == {"FINISHED"}
    before, meshes = obj.data, set(bpy.data.meshes)
    frame = list(obj["xray_frame"]["matrix"])

    steps = layers.rebuild_steps(layers.layers_of(obj))
    while next(steps).stage != "finish":
        pass
    steps.close()  # cancelled
    assert obj.data == before
    assert set(bpy.data.meshes) == meshes

    steps = layers.rebuild_steps(layers.layers_of(obj))
    while next(steps).stage != "finish":
        pass
    bpy.ops.object.mode_set(mode="EDIT")
    for _ in range(3):
        assert "leave" in next(steps).message
    assert obj.data == before
    bpy.ops.object.mode_set(mode="OBJECT")
    assert part("operators.tasks.jobs").run(steps) == obj
    assert sides(obj) == {4}
    assert obj.data.name == "apple"
    assert len(bpy.data.meshes) == len(meshes)
    assert list(obj["xray_frame"]["matrix"]) == frame


# Presets

SHIPPED = Path(__file__).parents[2] / "presets" / "xray"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Draft", {"target_faces": 3000}),
        ("Game_Prop", {"target_faces": 5000, "color": "texture", "smooth_angle": 30.0}),
        ("Print", {"topology": "quads", "target_faces": 100_000, "height": 0.1}),
    ],
)
def test_presets_of_the_result(part, settings, name, meant):
    bpy.context.scene.unit_settings.scale_length = 0.001
    panel = bpy.context.scene.xray.generate
    panel.symmetry, panel.asset, panel.smooth_angle, panel.height = "x", True, 1.0, 7.0
    bpy.utils.execfile(str(SHIPPED / "result" / f"{name}.py"))
    assert part("operators.properties").settings_from_properties(settings, panel) == settings(
        **meant
    )


@pytest.mark.parametrize(
    ("name", "meant"), [("Published", {}), ("Fast", {"image": "cast", "image_size": 256})]
)
def test_presets_of_datasets(part, name, meant):
    panel, cls = bpy.context.scene.xray.dataset, part("xray_addon.settings").DatasetSettings
    panel.views, panel.image, panel.elevation, panel.omage = 9, "none", 0.5, "64"
    panel.source, panel.path = "files", "/meshes"
    bpy.utils.execfile(str(SHIPPED / "dataset" / f"{name}.py"))
    assert part("operators.properties").settings_from_properties(cls, panel) == cls(**meant)
    assert (panel.source, panel.path) == ("files", "/meshes")


def test_presets_that_ship_are_listed_before_the_users(part):
    panel = bpy.context.scene.xray.generate
    panel.target_faces = 1234
    assert bpy.ops.xray.result_preset_add(name="My Own") == {"FINISHED"}
    listed = []

    class Layout:
        def __getattr__(self, _name):
            return lambda *_args, **_how: Layout()

        def operator(self, _name, text="", **_):
            listed.append(text)
            return type("Properties", (), {})()

    presets = part("panels.generate").XRAY_PT_result_presets
    names = ("preset_subdir", "preset_operator", "preset_add_operator", "path_menu", "draw")
    shown = type("Shown", (), {n: presets.__dict__.get(n, getattr(presets, n)) for n in names})
    shown.layout, shown.bl_idname = Layout(), "XRAY_PT_result_presets"
    shown().draw(bpy.context)
    assert listed[:4] == ["Draft", "Game Prop", "Print", "My Own"]
    assert bpy.ops.xray.result_preset_add(name="My Own", remove_name=True) == {"FINISHED"}
