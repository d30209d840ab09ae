"""Objects in the same place are lit as one, and X-Rays keep both."""

from __future__ import annotations

import math

import bpy
import numpy as np
import pytest

SIZE = 48


@pytest.fixture
def render(part):
    """A Cycles picture of objects from the front and above, (S, S, 4) integers."""

    def picture(objects):
        bpy.context.view_layer.update()
        settings = part("xray_addon.settings").DatasetSettings(
            image_size=SIZE, samples=4, denoise=False, device="cpu"
        )
        camera = part("xray_addon.camera").Camera.look_at((1, -4, 2), width=SIZE, height=SIZE)
        surface = part("operators.convert").surface_from_objects(
            objects, bpy.context.evaluated_depsgraph_get()
        )
        with part("operators.dataset.rendering").Renderer(
            objects, settings, surface=surface
        ) as renderer:
            return part("operators.tasks.jobs").run(renderer.image_steps(camera, 0)).astype(int)

    return picture


@pytest.fixture
def box(cube):
    """A red cube."""
    material = bpy.data.materials.new("Red")
    if bpy.app.version < (5, 0, 0):
        material.use_nodes = True
    shader = next(n for n in material.node_tree.nodes if n.type == "BSDF_PRINCIPLED")
    shader.inputs["Base Color"].default_value = (0.8, 0.1, 0.1, 1.0)
    cube.data.materials.append(material)
    return cube


def another(obj, data=None):
    copy = bpy.data.objects.new("Copy", data or obj.data.copy())
    bpy.context.collection.objects.link(copy)
    return copy


def copies(obj, count):
    return [obj, *(another(obj) for _ in range(count))]


def instances(obj):
    return [obj, another(obj, obj.data), another(obj, obj.data)]


def applied(obj):
    """The same place by other numbers: a transform, and the transform in the vertices."""
    copy = another(obj)
    turn = (0.3, 0.7, 0.2)
    obj.rotation_euler, obj.scale, obj.location = turn, (0.3, 0.7, 0.9), (0.1, 0.2, 0.3)
    bpy.context.view_layer.update()
    copy.data.transform(obj.matrix_world)
    return [obj, copy]


def triangulated(obj):
    copy = another(obj)
    copy.modifiers.new("Triangles", "TRIANGULATE")
    return [obj, copy]


def part_of(obj):
    """A copy of one of its sides."""
    copy = another(obj, bpy.data.meshes.new("Side"))
    faces = [list(polygon.vertices) for polygon in obj.data.polygons]
    front = min(obj.data.polygons, key=lambda polygon: polygon.center.y).index
    copy.data.from_pydata([tuple(v.co) for v in obj.data.vertices], [], [faces[front]])
    return [obj, copy]


def turned_over(obj):
    copy = another(obj)
    copy.data.flip_normals()
    return [obj, copy]


@pytest.mark.parametrize(
    "make",
    [
        lambda obj: copies(obj, 1),
        lambda obj: copies(obj, 2),
        instances,
        applied,
        triangulated,
        part_of,
        turned_over,
    ],
    ids=["two", "three", "instances", "applied", "triangulated", "part", "turned over"],
)
def test_objects_in_the_same_place_are_lit(box, render, make):
    objects = make(box)
    alone, together = render(objects[:1]), render(objects)
    inside = (alone[..., 3] > 250) & (together[..., 3] > 250)
    assert inside.sum() > 100
    assert np.abs(together[inside] - alone[inside]).max() <= 30
    assert together[inside][:, 0].mean() > 150


def test_crossed_cards_and_neighbours_stay(xray, part, render):
    """Faces with one middle in common, or one side, are no doubles."""
    for turn in (0, 45, 90, 135):
        bpy.ops.mesh.primitive_plane_add(rotation=(math.pi / 2, 0, math.radians(turn)))
    cards = list(bpy.context.scene.objects)
    stage_of = part("operators.convert.staging").Stage
    with stage_of() as stage:
        stage.add_copies(cards, bpy.context.evaluated_depsgraph_get())
        part("operators.dataset.doubles").remove_doubles(stage)
        assert [len(obj.data.polygons) for obj in stage.objects] == [1] * 4


def test_layers_keep_both_in_pairs(box, surface_of, part):
    objects = copies(box, 1)
    objects[1].data.materials.clear()
    camera = part("xray_addon.camera").Camera.look_at((1, -4, 2), width=SIZE, height=SIZE)
    xray = part("xray_addon.casting").cast(surface_of(*objects), camera, 6)
    single = part("xray_addon.casting").cast(surface_of(box), camera, 6)
    hit = xray.hit
    assert hit.sum() == 2 * single.hit.sum()
    assert np.array_equal(hit[0], hit[1])
    assert np.allclose(xray.depth[0][hit[0]], xray.depth[1][hit[0]])
    assert np.allclose(xray.depth[0][hit[0]], single.depth[0][hit[0]])
    red = xray.color[0][hit[0]]
    assert (red[:, 0] > 2 * red[:, 1]).all(), "the first is in front, as in the picture"


@pytest.mark.parametrize("slots", [0, 1, 2])
@pytest.mark.parametrize("kind", ["BYTE_COLOR", "FLOAT_COLOR"])
def test_vertex_colours_without_material_are_in_the_picture(cube, render, surface_of, kind, slots):
    mesh = cube.data
    colors = mesh.color_attributes.new("Col", kind, "POINT")
    for item in colors.data:
        item.color_srgb = (63 / 255, 188 / 255, 63 / 255, 1.0)
    for _ in range(slots):  # empty ones
        mesh.materials.append(None)
    picture = render([cube])
    inside = picture[picture[..., 3] > 250][:, :3]
    assert np.abs(np.median(inside, axis=0) - (58, 174, 58)).max() < 15, "lit by the even light"
    surface = surface_of(cube)
    assert np.allclose(surface.corner_colors * 255, (63, 188, 63), atol=0.6)


def test_a_material_that_is_there_is_shown_beside_colours(box, render):
    colors = box.data.color_attributes.new("Col", "BYTE_COLOR", "POINT")
    for item in colors.data:
        item.color_srgb = (0.0, 1.0, 0.0, 1.0)
    picture = render([box])
    inside = picture[picture[..., 3] > 250][:, :3]
    assert (inside[:, 0] > inside[:, 1]).all()


def test_far_from_the_origin_a_picture_is_as_at_the_origin(part, settings_of, xray):
    bpy.ops.mesh.primitive_uv_sphere_add(segments=64, ring_count=32)
    ball = bpy.context.object
    bpy.ops.object.shade_smooth()
    here = settings_of(ball)
    ball.location = (448_262.0, 5_411_930.0, 310.0)
    there = settings_of(ball)
    both = (here[..., 3] > 250) & (there[..., 3] > 250)
    assert (here[..., 3] > 250).sum() - both.sum() < 20
    assert np.abs(here[both] - there[both]).max() <= 8


@pytest.fixture
def settings_of(part):
    """The picture of an object as a dataset makes it."""

    def picture(obj):
        bpy.context.view_layer.update()
        settings = part("xray_addon.settings").DatasetSettings(
            image_size=SIZE, samples=8, denoise=False, device="cpu"
        )
        surface = part("operators.convert").surface_from_objects(
            [obj], bpy.context.evaluated_depsgraph_get()
        )
        matrix = surface.normalizing
        camera = part("xray_addon.camera").Camera.look_at((0.3, -1.2, 0.6), width=SIZE, height=SIZE)
        renderer = part("operators.dataset.rendering").Renderer(
            [obj], settings, surface=surface.transformed(matrix), matrix=matrix
        )
        with renderer:
            return part("operators.tasks.jobs").run(renderer.image_steps(camera, 0)).astype(int)

    return picture
