"""Where a new mesh stands: on the floor, beside what is there."""

from __future__ import annotations

import itertools

import bpy
import numpy as np
import pytest


@pytest.fixture
def image(tmp_path, part):
    path = tmp_path / "apple.png"
    part("xray_addon.files.png").write_png(path, np.full((8, 8, 3), 200, np.uint8))
    return path


@pytest.fixture
def generate(fake_runtime, image):
    """Press Generate; the new object, a ball 0.6 high."""

    def press(**options):
        assert bpy.ops.xray.generate(filepath=str(image), **options) == {"FINISHED"}
        bpy.context.view_layer.update()
        return bpy.context.object

    return press


@pytest.fixture
def free_place(part):
    """The x where a cube of side 1, its origin at its base, is placed at the origin."""
    place = part("operators.generate.placing").free_place

    def find(*boxes):
        low, high = np.array([-0.5, -0.5, 0]), np.array([0.5, 0.5, 1])
        found = place(low, high, np.zeros(3), np.array(boxes, float).reshape(-1, 2, 3))
        assert tuple(found[1:]) == (0, 0)
        return pytest.approx(found[0])

    return find


def bounds(obj) -> np.ndarray:
    corners = np.array([obj.matrix_world @ vertex.co for vertex in obj.data.vertices])
    return np.stack([corners.min(axis=0), corners.max(axis=0)])


def test_an_empty_floor_is_free(free_place):
    assert free_place() == 0


def test_it_stands_to_the_right_of_what_is_in_the_way(free_place):
    assert free_place([(-1, -1, -1), (1, 1, 1)]) == 1.6
    # One behind the other, and a gap that is too narrow.
    assert free_place([(-1, -1, -1), (1, 1, 1)], [(2, 0, 0), (3, 1, 1)]) == 3.6
    # A gap that is wide enough.
    assert free_place([(-1, -1, -1), (1, 1, 1)], [(2.3, 0, 0), (3, 1, 1)]) == 1.6


def test_what_is_not_in_the_way_does_not_count(free_place):
    assert free_place([(-1, 0.5, 0), (1, 2, 1)]) == 0  # behind
    assert free_place([(-5, -5, -1), (5, 5, 0)]) == 0  # the floor
    assert free_place([(-1, -1, 1), (1, 1, 2)]) == 0  # above
    assert free_place([(-9, -9, -1), (9, 9, 9)]) == 0  # a room


def test_the_first_mesh_of_the_default_scene_is_beside_the_cube(generate, cube):
    made = bounds(generate())
    assert made[0, 0] > 1.0
    assert made[0, 2] == pytest.approx(0.0, abs=1e-6)


def test_two_presses_stand_side_by_side(generate):
    first, second = bounds(generate()), bounds(generate())
    assert second[0, 0] == pytest.approx(first[1, 0] + 0.06)
    assert first[0, 2] == second[0, 2] == pytest.approx(0.0, abs=1e-6)


def test_meshes_of_another_size_and_batch_keep_their_distance(generate):
    made = [bounds(generate(height=height, seed=seed)) for height, seed in ((1, 0), (3, 2), (2, 1))]
    made.sort(key=lambda box: box[0, 0])
    for left, right in itertools.pairwise(made):
        assert right[0, 0] > left[1, 0]


def test_only_what_is_visible_is_in_the_way(generate, cube):
    cube.hide_set(True)
    assert tuple(generate().location) == (0, 0, 0)


def test_an_instanced_collection_is_in_the_way(generate, cube):
    collection = bpy.data.collections.new("Props")
    collection.objects.link(cube)
    bpy.context.scene.collection.objects.unlink(cube)
    instance = bpy.data.objects.new("Instance", None)
    instance.instance_type, instance.instance_collection = "COLLECTION", collection
    instance.location.x = 0.5
    bpy.context.scene.collection.objects.link(instance)
    assert bounds(generate())[0, 0] > 1.5
    collection.instance_offset.x = -3  # which moves the instance out of the way
    assert generate().location.x == 0


def test_lights_cameras_and_empties_are_not_in_the_way(generate):
    for kind in ("light", "camera", "empty"):
        getattr(bpy.ops.object, f"{kind}_add")()
    assert tuple(generate().location) == (0, 0, 0)


def test_a_moved_and_turned_object_is_where_it_is_seen(generate, cube):
    cube.location, cube.rotation_euler.z = (3, 0, 0), np.pi / 4
    assert generate().location.x == 0
    cube.location.x = 0
    assert bounds(generate())[0, 0] > 2**0.5


@pytest.fixture
def view(xray):
    """The 3D view of the window that Blender as a module has, too."""
    (window,) = bpy.context.window_manager.windows
    (area,) = (area for area in window.screen.areas if area.type == "VIEW_3D")
    return area.spaces.active.region_3d


def test_the_first_mesh_of_a_press_is_framed_and_the_next_are_not(fake_runtime, image, view):
    view.view_location = (9, 9, 9)
    bpy.ops.xray.generate(filepath=str(image), variations=3)
    # The first: a ball of radius 0.3 at the cursor.
    assert tuple(view.view_location) == pytest.approx((0, 0, 0.3), abs=1e-5)
    assert view.view_distance == pytest.approx(2 * 0.6 * 3**0.5, rel=1e-3)


def test_another_seed_is_framed_together_with_the_first(generate, view):
    generate()
    bpy.ops.xray.another_seed()
    # From the left edge of the ball of radius 0.3 to the right edge of one of 0.4, 0.08 apart.
    assert view.view_location.x == pytest.approx((-0.3 + 0.3 + 0.08 + 0.8) / 2, abs=1e-4)


def test_a_view_through_a_camera_stays(generate, view):
    bpy.ops.object.camera_add(location=(0, -9, 0))
    bpy.context.scene.camera = bpy.context.object
    view.view_perspective = "CAMERA"
    before = tuple(view.view_location)
    generate()
    assert tuple(view.view_location) == before
