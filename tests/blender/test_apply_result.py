"""The settings of the result on a mesh that was generated before, and their presets."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
import pytest


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
    before = layers.layer_objects(collection)[0].scale.x
    height = obj.dimensions.z
    assert bpy.ops.xray.apply_result(height=6.0) == {"FINISHED"}
    bpy.context.view_layer.update()
    assert obj.dimensions.z == pytest.approx(6.0, rel=1e-4)
    after = layers.layer_objects(collection)[0].scale.x
    assert after / before == pytest.approx(6.0 / height, rel=1e-4)
    assert bpy.ops.xray.apply_result(height=3.0) == {"FINISHED"}
    bpy.context.view_layer.update()
    assert obj.dimensions.z == pytest.approx(3.0, rel=1e-4)


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


def test_a_rebuild_replaces_the_mesh_when_all_is_ready_and_nobody_edits_it(obj, part):
    layers = part("operators.layers.layers")
    assert bpy.ops.xray.apply_result(topology="quads", target_faces=300) == {"FINISHED"}
    before, meshes = obj.data, set(bpy.data.meshes)
    frame = obj["xray_frame"].to_dict()

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
    assert obj["xray_frame"].to_dict() == frame


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
