"""X-Ray files into the scene."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import MagicMock

import bpy
import numpy as np
import pytest


@pytest.fixture
def captured(part, tmp_path):
    """The X-Ray file of a smooth two-coloured ball with a ball inside, and its surface."""
    bpy.ops.mesh.primitive_ico_sphere_add(subdivisions=4, location=(3, -1, 0.5))
    outer = bpy.context.object
    bpy.ops.mesh.primitive_ico_sphere_add(subdivisions=3, radius=0.5, location=(3, -1, 0.5))
    inner = bpy.context.object
    settings = part("xray_addon.settings").CaptureSettings(views=1, layers=8, size=64, combine=True)
    part("operators.dataset.plain").capture_objects([outer, inner], tmp_path, settings)
    bpy.data.objects.remove(outer)
    bpy.data.objects.remove(inner)
    return tmp_path / "xrays" / "Icosphere" / "000.npz"


def test_a_mesh_comes_back_where_it_was(captured, surface_of):
    assert bpy.ops.xray.import_xray(filepath=str(captured)) == {"FINISHED"}
    obj = bpy.context.object
    assert obj.name == "Icosphere 000"
    assert obj.select_get()
    bounds = surface_of(obj).bounds
    assert np.allclose(bounds, [[2, -2, -0.5], [4, 0, 1.5]], atol=0.06)
    assert list(obj["xray_hits"])[4:] == [0, 0, 0, 0]
    assert obj["xray_file"] == str(captured)


@pytest.mark.parametrize("form", ["mesh", "layers"])
def test_an_import_beside_a_linked_collection_goes_to_the_scene(captured, linked_collection, form):
    linked_collection()
    assert bpy.ops.xray.import_xray(filepath=str(captured), form=form) == {"FINISHED"}
    scene = bpy.context.scene.collection
    assert bpy.context.object.users_collection[0] in (scene, *scene.children)


def test_points_are_the_hits(captured, part):
    assert bpy.ops.xray.import_xray(filepath=str(captured), form="points") == {"FINISHED"}
    xray = part("xray_addon.xray").XRay.load(captured)
    obj = bpy.context.object
    assert len(obj.data.vertices) == len(xray.index)
    radius = np.linalg.norm([v.co for v in obj.data.vertices], axis=1)
    assert ((np.abs(radius - 0.5) < 0.01) | (np.abs(radius - 0.25) < 0.01)).all()


def test_points_are_drawn(captured):
    bpy.ops.xray.import_xray(filepath=str(captured), form="points")
    evaluated = bpy.context.object.evaluated_get(bpy.context.evaluated_depsgraph_get())
    if not hasattr(evaluated, "evaluated_geometry"):
        pytest.skip("this Blender does not tell what Geometry Nodes made")
    geometry = evaluated.evaluated_geometry()
    assert len(geometry.pointcloud.points) == len(bpy.context.object.data.vertices)
    assert 0.001 < geometry.pointcloud.points[0].radius < 0.05


@pytest.fixture
def layers(captured, part):
    """The collection of the captured layers."""
    assert bpy.ops.xray.import_xray(filepath=str(captured), form="layers") == {"FINISHED"}
    return part("operators.layers.layers").layers_of(bpy.context.object)


def test_layers_are_one_mesh_each(layers, captured, part):
    objects = part("operators.layers.layers").layer_objects(layers)
    assert layers.name == "Icosphere 000 Layers"
    assert [obj["xray_layer"] for obj in objects] == [0, 1, 2, 3]
    counts = part("xray_addon.xray").XRay.load(captured).hits_per_layer
    assert [len(obj.data.vertices) for obj in objects] == list(counts[:4])
    for obj in objects:
        mesh = obj.data
        assert len(mesh.polygons) > 0.8 * len(mesh.vertices)
        assert mesh.validate() is False  # nothing to mend
        faces = np.array([tuple(f.normal) for f in mesh.polygons])
        seen = np.array([tuple(v.co) for v in mesh.vertices])
        middles = np.array([seen[list(f.vertices)].mean(axis=0) for f in mesh.polygons])
        # Both balls' faces look away from their common middle.
        assert (np.einsum("ij,ij->i", faces, middles) > 0).mean() > 0.97


def test_peeling_hides_the_nearest(layers, part):
    objects = part("operators.layers.layers").layer_objects(layers)
    for peel in (0, 1, 3, 0):
        layers.xray.peel = peel
        assert [obj.hide_viewport for obj in objects] == [i < peel for i in range(4)]
        assert [obj.hide_render for obj in objects] == [i < peel for i in range(4)]


def test_exploding_moves_layers_along_the_view_and_back(layers, captured, part, surface_of):
    module = part("operators.layers.layers")
    camera = module.load_placed(captured).camera
    objects = module.layer_objects(layers)
    before = [surface_of(obj).vertices for obj in objects]
    layers.xray.explode = 0.5
    bpy.context.view_layer.update()
    forward = -camera.camera_to_world[:3, 2]
    size = 2 * layers["xray_size"]  # the ball was captured at half its size
    assert size == pytest.approx(2.0, abs=0.1)
    places = [np.array(obj.matrix_world.translation) for obj in objects]
    for i, place in enumerate(places):
        shift = (i - 1.5) * 0.5 * size * forward
        assert np.allclose(place - shift, (3, -1, 0.5), atol=1e-5)
    layers.xray.explode = 0.0
    for obj, vertices in zip(objects, before, strict=True):
        assert np.array_equal(surface_of(obj).vertices, vertices)


def test_the_operator_does_what_the_sliders_do_and_can_be_undone(layers, part):
    bpy.ops.ed.undo_push(message="Before")
    bpy.ops.xray.show_layers("EXEC_DEFAULT", True, peel=2, explode=0.25)
    collection = bpy.data.collections["Icosphere 000 Layers"]
    objects = part("operators.layers.layers").layer_objects(collection)
    assert (collection.xray.peel, collection.xray.explode) == (2, 0.25)
    assert [obj.hide_viewport for obj in objects] == [True, True, False, False]
    bpy.ops.ed.undo()
    collection = bpy.data.collections["Icosphere 000 Layers"]
    objects = part("operators.layers.layers").layer_objects(collection)
    assert (collection.xray.peel, collection.xray.explode) == (0, 0.0)
    assert not any(obj.hide_viewport for obj in objects)
    assert all(tuple(obj.delta_location) == (0, 0, 0) for obj in objects)


def test_what_the_layers_hold_is_the_xray(layers, captured, part):
    layers.xray.explode = 1.0  # how they are shown does not count
    xray = part("xray_addon.xray").XRay.load(captured)
    placed = part("operators.layers.layers").read_layers(layers)
    assert placed.xray.shape == xray.shape
    assert np.array_equal(placed.xray.index, xray.index)
    assert np.allclose(placed.xray.hit_depth, xray.hit_depth, atol=1e-6)
    assert np.allclose(placed.xray.hit_normal, xray.hit_normal, atol=1e-6)
    assert np.allclose(placed.xray.hit_color, xray.hit_color, atol=0.003)


def test_rebuilding_untouched_layers_gives_the_mesh(layers, captured, part, surface_of):
    part("operators.layers.layers").import_xray(captured)
    whole = surface_of(bpy.data.objects["Icosphere 000"])
    bpy.context.view_layer.objects.active = layers.objects[0]
    assert bpy.ops.xray.rebuild() == {"FINISHED"}
    obj = bpy.context.object
    assert part("operators.layers.layers").layers_of(obj) == layers
    again = surface_of(obj)
    assert np.allclose(again.vertices, whole.vertices, atol=1e-5)
    # Where a quad's two diagonals are as good, the last bits decide which one splits it.
    assert (again.faces == whole.faces).all(axis=1).mean() > 0.99
    # A second time the same object gets the mesh.
    count = len(bpy.data.objects)
    assert bpy.ops.xray.rebuild() == {"FINISHED"}
    assert (bpy.context.object, len(bpy.data.objects)) == (obj, count)


def test_deleting_the_inner_ball_leaves_the_outer_one(layers, captured, part, surface_of):
    placed = part("operators.layers.layers").load_placed(captured)
    whole = placed.xray.points(placed.camera)
    objects = part("operators.layers.layers").layer_objects(layers)
    for obj in objects:
        bpy.context.view_layer.objects.active = obj
        bpy.ops.object.mode_set(mode="EDIT")
        bpy.ops.mesh.select_all(action="DESELECT")
        bpy.ops.object.mode_set(mode="OBJECT")
        for vertex in obj.data.vertices:
            vertex.select = vertex.co.length < 0.4
        bpy.ops.object.mode_set(mode="EDIT")
        bpy.ops.mesh.delete(type="VERT")
        # Left in Edit Mode, as a person leaves it.
        if obj != objects[-1]:
            bpy.ops.object.mode_set(mode="OBJECT")
    assert bpy.ops.xray.rebuild() == {"FINISHED"}
    surface = surface_of(bpy.context.object)
    kept = np.linalg.norm(whole.positions, axis=1) >= 0.4
    hits = placed.xray
    parts = (hits.index, hits.hit_depth, hits.hit_normal, hits.hit_color)
    xray = part("xray_addon.xray").XRay.from_hits(hits.shape, *(values[kept] for values in parts))
    expected = part("xray_addon.reconstruction").reconstruct(xray, placed.camera)
    assert surface.faces.shape == expected.faces.shape
    assert np.linalg.norm(surface.vertices, axis=1).min() > 0.4


def test_marked_hits_are_left_out_and_stay_in_the_layers(layers, captured, part):
    module = part("operators.layers.layers")
    whole = part("xray_addon.xray").XRay.load(captured)
    obj = module.layer_objects(layers)[1]
    chosen = [v.index for v in obj.data.vertices if v.co.length < 0.4]
    others = [v.index for v in obj.data.vertices if v.co.length >= 0.4]
    obj.vertex_groups[module.DELETE].add(chosen, 1.0, "REPLACE")
    obj.vertex_groups[module.DELETE].add(others, 0.2, "REPLACE")
    vertices = len(obj.data.vertices)
    left = module.read_layers(layers).xray
    hits = list(whole.hits_per_layer)
    hits[1] -= len(chosen)
    assert 0 < len(chosen) < vertices
    assert list(left.hits_per_layer) == hits
    assert len(obj.data.vertices) == vertices


def test_moved_vertices_and_new_ones(layers, part):
    module = part("operators.layers.layers")
    before = module.read_layers(layers)
    obj = module.layer_objects(layers)[0]
    camera = before.camera.position
    vertex = obj.data.vertices[5]
    vertex.co = camera + 1.1 * (np.array(vertex.co) - camera)
    obj.data.vertices.add(1)  # a new one claims a pixel that has a hit
    obj.data.vertices[-1].co = camera
    obj.data.attributes["pixel"].data[len(obj.data.vertices) - 1].value = int(before.xray.index[0])
    after = module.read_layers(layers).xray
    assert np.array_equal(after.index, before.xray.index)
    change = after.hit_depth / before.xray.hit_depth
    assert change[5] == pytest.approx(1.1, abs=1e-5)
    assert np.allclose(np.delete(change, 5), 1.0, atol=1e-5)


def test_a_missing_attribute_says_so(layers):
    mesh = layers.objects[0].data
    mesh.attributes.remove(mesh.attributes["pixel"])
    with pytest.raises(RuntimeError, match="no vertex attribute pixel"):
        bpy.ops.xray.rebuild()


def test_everything_marked_says_so(layers, part):
    module = part("operators.layers.layers")
    for obj in layers.objects:
        obj.vertex_groups[module.DELETE].add(range(len(obj.data.vertices)), 1.0, "REPLACE")
    with pytest.raises(RuntimeError, match="no hits left"):
        bpy.ops.xray.rebuild()


def test_a_rebuilt_mesh_keeps_its_material_only_if_that_shows_on_it(layers, part):
    """A texture on a UV map, which the rebuilt mesh does not have, would be one colour."""
    assert bpy.ops.xray.rebuild() == {"FINISHED"}
    obj = part("operators.layers.layers").mesh_of(layers)
    plain = bpy.data.materials.new("Plain")
    textured, grouped = bpy.data.materials.new("Textured"), bpy.data.materials.new("Grouped")
    with_nodes = part("operators.convert.materials").with_nodes
    with_nodes(textured).nodes.new("ShaderNodeTexImage")
    group = bpy.data.node_groups.new("Texture", "ShaderNodeTree")
    group.nodes.new("ShaderNodeTexImage")
    with_nodes(grouped).nodes.new("ShaderNodeGroup").node_tree = group
    obj.data.uv_layers.new(name="UVMap")
    for material, kept in ((plain, True), (textured, False), (grouped, False)):
        obj.data.materials.clear()
        obj.data.materials.append(material)
        assert bpy.ops.xray.rebuild() == {"FINISHED"}
        (shown,) = obj.data.materials
        assert (shown == material) is kept
        assert "Color" in obj.data.attributes
        obj.data.uv_layers.new(name="UVMap")


def test_a_rebuilt_mesh_is_as_detailed_as_the_one_it_replaces(layers, part):
    module = part("operators.layers.layers")
    assert bpy.ops.xray.rebuild() == {"FINISHED"}
    obj = module.mesh_of(layers)
    full = len(obj.data.polygons)
    assert bpy.ops.xray.rebuild(target_faces=full // 4) == {"FINISHED"}
    assert len(obj.data.polygons) == pytest.approx(full / 4, rel=0.1)
    assert bpy.ops.xray.rebuild() == {"FINISHED"}
    assert len(obj.data.polygons) == pytest.approx(full / 4, rel=0.1)
    assert "Color" in obj.data.attributes
    # With fewer hits there are fewer faces, and as many as before once these hits are back.
    inner = [layer for layer in module.layer_objects(layers) if layer["xray_layer"] in (1, 2)]
    for layer in inner:
        layer.vertex_groups[module.DELETE].add(range(len(layer.data.vertices)), 1.0, "REPLACE")
    assert bpy.ops.xray.rebuild() == {"FINISHED"}
    assert len(obj.data.polygons) < 0.9 * full / 4
    for layer in inner:
        layer.vertex_groups[module.DELETE].remove(range(len(layer.data.vertices)))
    assert bpy.ops.xray.rebuild() == {"FINISHED"}
    assert len(obj.data.polygons) == pytest.approx(full / 4, rel=0.1)


def test_a_mesh_of_layers_without_one_has_the_faces_that_were_asked_for(layers, part):
    assert bpy.ops.xray.rebuild(target_faces=1000) == {"FINISHED"}
    obj = part("operators.layers.layers").mesh_of(layers)
    assert len(obj.data.polygons) == pytest.approx(1000, rel=0.1)
    assert obj.name == obj.data.name == "Icosphere 000"
    assert "Mesh" not in bpy.data.meshes


def test_the_panels_number_of_faces_is_the_buttons_and_the_menus(layers, part):
    layers.xray.use_target_faces = True
    assert layers.xray.target_faces == 20_000
    layers.xray.target_faces = 1234
    button = SimpleNamespace()
    part("operators.layers.ops").set_from_layers(button, bpy.context)
    assert button.target_faces == 1234
    for panel in ("layers.XRAY_PT_layers", "menus.XRAY_MT_capture"):
        module, name = panel.split(".")
        layout = MagicMock()
        getattr(part(f"panels.{module}"), name).draw(SimpleNamespace(layout=layout), bpy.context)
        made = [call for call in layout.mock_calls if call.args[:1] == ("xray.rebuild",)]
        assert len(made) == 1
        row = layout if module == "menus" else layout.column.return_value
        assert row.operator.return_value.target_faces == 1234


def test_layers_that_are_all_deleted_can_be_peeled(layers, part):
    assert bpy.ops.xray.rebuild() == {"FINISHED"}
    for layer in part("operators.layers.layers").layer_objects(layers):
        bpy.data.objects.remove(layer)
    # Without a window Blender does not call invoke.
    operator = SimpleNamespace(
        properties=SimpleNamespace(is_property_set=lambda name: name == "explode"),
        execute=lambda _context: {"FINISHED"},
    )
    invoke = part("operators.layers.ops").XRAY_OT_show_layers.invoke
    assert invoke(operator, bpy.context, None) == {"FINISHED"}
    assert operator.peel == 0


def test_a_rebuild_can_be_undone(layers):
    bpy.ops.ed.undo_push(message="Before")
    count = len(bpy.data.objects)
    bpy.ops.xray.rebuild("EXEC_DEFAULT", True)
    assert len(bpy.data.objects) == count + 1
    bpy.ops.ed.undo()
    assert len(bpy.data.objects) == count


@pytest.mark.parametrize("channel", ["depth", "normal", "colour", "hit"])
def test_a_picture_of_the_layers(layers, captured, part, channel):
    xray = part("xray_addon.xray").XRay.load(captured)
    expected = part("xray_addon.pictures.contact_sheet").layer_grid(xray, channel)

    def shown():
        image = bpy.data.images["X-Ray Layers"]
        pixels = np.empty(len(image.pixels), np.float32)
        image.pixels.foreach_get(pixels)
        return np.rint(pixels.reshape(image.size[1], image.size[0], 4)[::-1, :, :3] * 255).astype(
            np.uint8
        )

    assert bpy.ops.xray.show_picture(filepath=str(captured), channel=channel) == {"FINISHED"}
    assert np.array_equal(shown(), expected)
    bpy.data.images.remove(bpy.data.images["X-Ray Layers"])
    assert bpy.ops.xray.show_picture(channel=channel) == {"FINISHED"}
    # Depths and colours went through the mesh and came back rounded.
    assert np.abs(shown().astype(int) - expected).max() <= 2


def test_a_picture_of_layers_in_edit_mode_leaves_it(layers):
    bpy.ops.object.mode_set(mode="EDIT")
    assert bpy.ops.xray.show_picture() == {"FINISHED"}
    assert bpy.context.mode == "OBJECT"


def test_without_layers_the_operators_say_what_to_do(cube):
    assert not bpy.ops.xray.rebuild.poll()
    assert not bpy.ops.xray.show_layers.poll()
    with pytest.raises(RuntimeError, match="Import an X-Ray as layers"):
        bpy.ops.xray.show_picture()


def test_layers_survive_a_save(layers, part, tmp_path):
    module = part("operators.layers.layers")
    before = module.read_layers(layers)
    layers.xray.peel = 2
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "a.blend"))
    collection = bpy.data.collections["Icosphere 000 Layers"]
    assert collection.xray.peel == 2
    after = module.read_layers(collection)
    assert np.array_equal(after.xray.hit_depth, before.xray.hit_depth)
    assert np.array_equal(after.camera.camera_to_world, before.camera.camera_to_world)


def test_without_transforms_the_viewer_is_in_front(captured, part):
    (captured.parents[2] / "images/Icosphere/transforms.json").unlink()
    placed = part("operators.layers.layers").load_placed(captured)
    assert placed.camera.position[1] < 0
    np.testing.assert_allclose(placed.camera.position[::2], 0)


def test_transforms_beside_the_file_count(captured, part):
    published = captured.parents[2] / "images/Icosphere/transforms.json"
    load_placed = part("operators.layers.layers").load_placed
    pose = load_placed(captured).camera.camera_to_world
    published.rename(captured.parent / "transforms.json")
    assert np.array_equal(load_placed(captured).camera.camera_to_world, pose)


def test_layers_and_what_is_rebuilt_of_them_are_where_it_was(layers, surface_of):
    bpy.ops.xray.rebuild()
    rebuilt = bpy.context.object
    assert "xray_layer" not in rebuilt
    for obj in (layers.objects[0], rebuilt):
        bounds = surface_of(obj).bounds
        assert np.allclose((bounds[0] + bounds[1])[[0, 2]] / 2, (3, 0.5), atol=0.5)
    assert np.allclose(bounds, [[2, -2, -0.5], [4, 0, 1.5]], atol=0.06)


def test_what_comes_back_can_be_captured_again(captured, part, surface_of):
    bpy.ops.xray.import_xray(filepath=str(captured))
    obj = bpy.context.object
    placed = part("operators.layers.layers").load_placed(captured)
    moved = surface_of(obj).transformed(placed.moved)
    again = part("xray_addon.casting").cast(moved, placed.camera, 8)
    both = (again.depth[0] > 0) & (placed.xray.depth[0] > 0)
    either = (again.depth[0] > 0) | (placed.xray.depth[0] > 0)
    assert both.sum() / either.sum() > 0.97
    error = np.abs(again.depth[0] - placed.xray.depth[0])[both]
    assert np.median(error) < 0.002


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no file"),
        (b"PK", "not an X-Ray"),
        (b"", "empty file"),
    ],
)
def test_a_bad_file_says_so(xray, tmp_path, content, reason):
    path = tmp_path / "bad.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RuntimeError, match=reason) as caught:
        bpy.ops.xray.import_xray(filepath=str(path))
    assert "Traceback" not in str(caught.value)


def test_an_empty_xray_says_so(part, tmp_path):
    empty = np.zeros((2, 8, 8))
    part("xray_addon.xray").XRay(empty, np.zeros((2, 8, 8, 3)), np.zeros((2, 8, 8, 3))).save(
        tmp_path / "empty.npz"
    )
    with pytest.raises(RuntimeError, match="no hits"):
        bpy.ops.xray.import_xray(filepath=str(tmp_path / "empty.npz"))


def test_an_import_can_be_undone(captured):
    bpy.ops.ed.undo_push(message="Before")
    bpy.ops.xray.import_xray("EXEC_DEFAULT", True, filepath=str(captured))
    assert len(bpy.data.objects) == 1
    bpy.ops.ed.undo()
    assert len(bpy.data.objects) == 0
    bpy.ops.ed.redo()
    assert len(bpy.data.objects) == 1
