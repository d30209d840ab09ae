"""X-Ray files into the scene."""

from __future__ import annotations

import bpy
import numpy as np
import pytest


@pytest.fixture
def captured(part, tmp_path):
    """The X-Ray file of a smooth two-coloured ball with a ball inside, and its surface."""
    bpy.ops.mesh.primitive_ico_sphere_add(subdivisions=4)
    outer = bpy.context.object
    bpy.ops.mesh.primitive_ico_sphere_add(subdivisions=3, radius=0.5)
    inner = bpy.context.object
    settings = part("xray_addon.settings").CaptureSettings(views=1, layers=8, size=64, combine=True)
    part("operators.capture").capture_objects([outer, inner], tmp_path, settings)
    bpy.data.objects.remove(outer)
    bpy.data.objects.remove(inner)
    return tmp_path / "xrays" / "Icosphere" / "000.npz"


def test_a_mesh_comes_back_where_it_was(captured, surface_of):
    assert bpy.ops.xray.import_xray(filepath=str(captured)) == {"FINISHED"}
    obj = bpy.context.object
    assert obj.name == "Icosphere 000"
    assert obj.select_get()
    bounds = surface_of(obj).bounds
    assert np.allclose(bounds, [[-0.5] * 3, [0.5] * 3], atol=0.03)
    assert list(obj["xray_hits"])[4:] == [0, 0, 0, 0]
    assert obj["xray_file"] == str(captured)


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


def test_layers_are_one_object_each(captured, part):
    assert bpy.ops.xray.import_xray(filepath=str(captured), form="layers") == {"FINISHED"}
    layers = part("operators.layers").layer_objects(bpy.context.object)
    assert [obj["xray_layer"] for obj in layers] == [0, 1, 2, 3]
    counts = part("xray_addon.xray").XRay.load(captured).hits_per_layer
    assert [obj["xray_count"] for obj in layers] == list(counts[:4])
    assert [len(obj.data.vertices) for obj in layers] == list(counts[:4])
    assert bpy.data.collections["Icosphere 000 Layers"].objects[0] == layers[0]


def test_without_transforms_the_viewer_is_in_front(captured, part):
    (captured.parents[2] / "images/Icosphere/transforms.json").unlink()
    placed = part("operators.layers").load_placed(captured)
    assert not placed.known
    assert placed.camera.position[1] < 0


def test_transforms_beside_the_file_count(captured, part):
    published = captured.parents[2] / "images/Icosphere/transforms.json"
    published.rename(captured.parent / "transforms.json")
    assert part("operators.layers").load_placed(captured).known


def test_what_comes_back_can_be_captured_again(captured, part, surface_of):
    bpy.ops.xray.import_xray(filepath=str(captured))
    obj = bpy.context.object
    placed = part("operators.layers").load_placed(captured)
    again = part("xray_addon.casting").cast(surface_of(obj), placed.camera, 8)
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
        (b"", "not an X-Ray"),
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
