"""Reference images agree with the X-Ray, and rendering leaves the user's file as it was."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import bpy
import numpy as np
import pytest

TOADSTOOL = Path(__file__).parents[1] / "demo" / "toadstool.glb"
SIZE = 64


def everything() -> dict[str, object]:
    """What a person would notice if it changed."""
    scene = bpy.context.scene
    kinds = ("scenes", "objects", "meshes", "materials", "images", "worlds", "lights", "cameras")
    return {
        **{kind: sorted(item.name for item in getattr(bpy.data, kind)) for kind in kinds},
        "scene": scene.name,
        "camera": scene.camera,
        "world": scene.world,
        "engine": scene.render.engine,
        "resolution": (scene.render.resolution_x, scene.render.resolution_y),
        "film": scene.render.film_transparent,
        "path": scene.render.filepath,
        "view": scene.view_settings.view_transform,
        "selected": sorted(obj.name for obj in bpy.context.selected_objects),
        "poses": {obj.name: [list(row) for row in obj.matrix_world] for obj in scene.objects},
    }


@pytest.fixture
def settings(part):
    """Dataset settings for quick Cycles pictures."""

    def make(**values):
        chosen = {"image_size": SIZE, "samples": 4, "denoise": False, "device": "cpu", **values}
        return part("xray_addon.settings").DatasetSettings(**chosen)

    return make


@pytest.fixture
def renderer(part):
    """A renderer of objects."""

    def make(objects, chosen, matrix=None):
        surface = part("operators.convert").surface_from_objects(
            objects, bpy.context.evaluated_depsgraph_get(), visible_in=chosen.visible_in
        )
        if matrix is not None:
            surface = surface.transformed(matrix)
        return part("operators.dataset.rendering").Renderer(
            objects, chosen, surface=surface, matrix=matrix
        )

    return make


@pytest.fixture
def render(part, settings, renderer):
    """Pictures of objects from cameras; checks that the file stays as it was."""

    def pictures(objects, cameras, seed=0, matrix=None, **values):
        bpy.context.view_layer.update()
        before = everything()
        with renderer(objects, settings(**values), matrix) as made_by:
            run = part("operators.tasks.jobs").run
            made = [run(made_by.image_steps(camera, seed)) for camera in cameras]
        assert everything() == before
        return made

    return pictures


@pytest.fixture
def iou(part, surface_of):
    """Of a picture's alpha and what is cast from the same camera."""

    def compare(picture, camera, objects, matrix=None):
        surface = surface_of(*objects).transformed(np.eye(4) if matrix is None else matrix)
        seen = part("operators.dataset.rendering").picture_camera(camera, SIZE)
        xray = part("xray_addon.casting").cast(surface, seen, 1)
        assert xray.hit.mean() > 0.05
        return part("xray_addon.metrics").silhouette_iou(picture[..., 3], xray)

    return compare


@pytest.fixture
def view(part):
    """A camera that looks at the origin."""
    return lambda eye, **options: part("xray_addon.camera").Camera.look_at(eye, **options)


@pytest.fixture
def toadstool(part, surface_of, view):
    """The demo's mesh, and a camera that it nearly fills."""
    objects = part("operators.convert.mesh_files").open_alone(TOADSTOOL)
    low, high = surface_of(*objects).bounds
    middle, size = (low + high) / 2, float((high - low).max())
    eye = middle + size * np.array([0.9, -1.0, 0.5])
    return objects, view(eye, target=middle, width=32, height=32)


@pytest.fixture
def errors(part):
    return part("xray_addon.errors").XRayError


def matt(obj, color=(0.5, 0.3, 0.1)):
    """Give an object one material that only scatters, as the built-in shader assumes."""
    material = bpy.data.materials.new("Matt")
    if bpy.app.version < (5, 0, 0):
        material.use_nodes = True
    tree = material.node_tree
    diffuse = tree.nodes.new("ShaderNodeBsdfDiffuse")
    diffuse.inputs["Color"].default_value = (*color, 1.0)
    tree.links.new(diffuse.outputs[0], tree.get_output_node("CYCLES").inputs["Surface"])
    obj.data.materials.append(material)


# Cycles


def test_alpha_is_the_first_layer_centred_and_off_centre(render, iou, toadstool):
    objects, camera = toadstool
    wide = replace(camera, width=48, height=32, cx=31.0, cy=9.0, pixel_offset=0.0)
    pictures = render(objects, [camera, wide])
    assert [picture.shape for picture in pictures] == [(SIZE, SIZE, 4), (43, SIZE, 4)]
    assert iou(pictures[0], camera, objects) > 0.98
    assert iou(pictures[1], wide, objects) > 0.98
    # Red, white, brown, green: each part has its own material.
    shown = pictures[0][pictures[0][..., 3] == 255][:, :3].astype(int)
    assert (shown.min(axis=1) > 180).sum() > 10
    assert (shown[:, 0] - shown[:, 1] > 90).sum() > 10
    assert (shown[:, 1] - shown[:, 0] > 40).sum() > 10


def test_what_the_viewport_shows_is_rendered_in_its_place(part, render, iou, view):
    bpy.ops.mesh.primitive_cube_add(size=0.5)
    cube = bpy.context.object
    array = cube.modifiers.new("Array", "ARRAY")
    array.count, array.show_render = 2, False  # shown in the viewport, off in renders
    parent = bpy.data.objects.new("Parent", None)
    bpy.context.collection.objects.link(parent)
    parent.scale, cube.rotation_euler, cube.parent = (1.0, 0.4, 1.5), (0.4, 0.3, 0.7), parent
    inner = bpy.data.collections.new("Inner")
    bpy.context.scene.collection.children.link(inner)
    bpy.ops.mesh.primitive_uv_sphere_add(radius=0.2)
    ball = bpy.context.object
    holder = bpy.data.objects.new("Instance", None)
    holder.instance_type, holder.instance_collection = "COLLECTION", inner
    inner.objects.link(ball)
    bpy.context.collection.objects.unlink(ball)
    holder.location, holder.scale = (-0.3, 0.2, 0.4), (1.0, -2.0, 1.0)
    bpy.context.collection.objects.link(holder)
    bpy.context.view_layer.layer_collection.children["Inner"].exclude = True
    # Far from the origin and large: the matrix brings it back.
    parent.location, holder.location = (100.0, 50.0, 0.0), (99.7, 50.2, 0.4)
    bpy.context.view_layer.update()
    matrix = np.array([[0, -0.5, 0, 25.0], [0.5, 0, 0, -50.0], [0, 0, 0.5, 0], [0, 0, 0, 1.0]])
    camera = view((0.6, -0.9, 0.7), width=32, height=32)
    (picture,) = render([cube, holder], [camera], matrix=matrix)
    assert iou(picture, camera, [cube, holder], matrix) > 0.97


def test_the_same_seed_gives_the_same_picture(part, render, cube, view):
    camera = view((4, -4, 3), width=16, height=16)
    options = {"image_size": 16, "samples": 1, "lights": "random"}
    first, again = (render([cube], [camera], 3, **options)[0] for _ in range(2))
    (other,) = render([cube], [camera], 4, **options)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("lights", ["even", "studio", "random"])
def test_matt_surfaces_are_lit_as_by_the_built_in_shader(render, view, lights):
    bpy.ops.mesh.primitive_uv_sphere_add(segments=48, ring_count=24)
    ball = bpy.context.object
    bpy.ops.object.shade_smooth()
    matt(ball)
    camera = view((2.5, -2.0, 0.8), width=32, height=32)
    options = {"image_size": 32, "lights": lights}
    (rendered,) = render([ball], [camera], 2, samples=48, **options)
    (cast,) = render([ball], [camera], 2, image="cast", **options)
    inside = (rendered[..., 3] == 255) & (cast[..., 3] == 255)
    error = (rendered[inside].astype(float) - cast[inside])[:, :3]
    assert np.abs(error.mean(axis=0)).max() < 3.0
    assert np.abs(error).mean() < 8.0  # noise, and the soft edge of the sun's shadow
    assert np.ptp(cast[inside][:, 0]) > 20


def test_the_scenes_own_lights_and_no_others(render, cube, view):
    lamp = bpy.data.objects.new("Lamp", bpy.data.lights.new("Lamp", "SUN"))
    lamp.rotation_euler = (0.0, 1.5708, 0.0)  # shines towards -x
    bpy.context.collection.objects.link(lamp)
    matt(cube)
    camera = view((4, -4, 0), width=16, height=16)
    (picture,) = render([cube], [camera], image_size=16, lights="scene")
    left, right = picture[8, 5, :3].astype(int), picture[8, 10, :3].astype(int)
    assert right.sum() > 100
    assert left.sum() < 30


@pytest.mark.parametrize("how", ["object", "collection", "excluded"])
def test_the_scenes_lights_that_a_render_does_not_show_are_off(render, cube, view, errors, how):
    lamp = bpy.data.objects.new("Lamp", bpy.data.lights.new("Lamp", "SUN"))
    lamps = bpy.data.collections.new("Lamps")
    bpy.context.scene.collection.children.link(lamps)
    lamps.objects.link(lamp)
    if how == "excluded":
        bpy.context.view_layer.layer_collection.children["Lamps"].exclude = True
    else:
        {"object": lamp, "collection": lamps}[how].hide_render = True
    with pytest.raises(errors) as caught:
        render([cube], [view((4, -4, 0))], lights="scene")
    assert caught.value.code == "no_lights"


def test_a_light_that_only_the_viewport_hides_is_on(render, cube, view):
    lamp = bpy.data.objects.new("Lamp", bpy.data.lights.new("Lamp", "SUN"))
    bpy.context.collection.objects.link(lamp)
    lamp.hide_viewport = True
    render([cube], [view((4, -4, 0))], image_size=16, lights="scene")


def test_an_environment_image_lights(render, cube, view, part, tmp_path):
    matt(cube, (0.8, 0.8, 0.8))
    path = tmp_path / "green.png"
    part("xray_addon.files.png").write_png(path, np.full((4, 8, 3), (0, 200, 0), np.uint8))
    camera = view((4, -4, 3), width=16, height=16)
    (picture,) = render([cube], [camera], image_size=16, lights="hdri", hdri=str(path))
    shown = picture[picture[..., 3] == 255]
    assert (shown[:, 1] > 100).all()
    assert shown[:, 0].max() == shown[:, 2].max() == 0


# What cannot be done says why


def test_faces_that_lie_on_each_other_are_lit(cube, part, render, view):
    """As in models with every face twice, in another order or turned over."""
    camera = view((0, -4, 2), width=SIZE, height=SIZE)
    (alone,) = render([cube], [camera])
    mesh = cube.data
    vertices = [tuple(vertex.co) for vertex in mesh.vertices]
    faces = [tuple(polygon.vertices) for polygon in mesh.polygons]
    doubled = bpy.data.meshes.new("Doubled")
    doubled.from_pydata(
        vertices * 2, [], faces + [tuple(8 + i for i in reversed(face)) for face in faces]
    )
    cube.data = doubled
    (twice,) = render([cube], [camera])
    assert len(doubled.polygons) == 12, "the object itself keeps them"
    inside = alone[..., 3] > 250
    assert np.abs(twice[inside].astype(int) - alone[inside]).max() <= 30
    assert alone[inside][:, :3].mean() > 100


def test_a_blender_without_the_denoiser_says_so_before_it_renders(
    cube, part, settings, renderer, monkeypatch
):
    rendering = part("operators.dataset.rendering")
    monkeypatch.setattr(rendering, "_has_denoiser", lambda: False)
    with (
        pytest.raises(part("xray_addon.errors").XRayError, match="--no-denoise") as caught,
        renderer([cube], settings(denoise=True)),
    ):
        pass
    assert part("xray_addon.errors").error_code(caught.value.code).stops
    with renderer([cube], settings()):
        pass


def test_no_environment_image(render, cube, view, errors, tmp_path):
    camera = view((4, -4, 3))
    before = everything()
    with pytest.raises(errors) as caught:
        render([cube], [camera], lights="hdri", hdri=str(tmp_path / "gone.hdr"))
    assert caught.value.code == "missing_file"
    (tmp_path / "bad.hdr").write_text("no image")
    with pytest.raises(errors) as caught:
        render([cube], [camera], lights="hdri", hdri=str(tmp_path / "bad.hdr"))
    assert caught.value.code == "bad_environment"
    assert everything() == before


def test_a_scene_without_lights(render, cube, view, errors):
    with pytest.raises(errors) as caught:
        render([cube], [view((4, -4, 3))], lights="scene")
    assert caught.value.code == "no_lights"


@pytest.mark.parametrize("what", ["image", "slices", "bake"])
def test_without_cycles_the_renderer_is_missed(part, render, cube, view, errors, settings, what):
    matt(cube)
    tree = cube.data.materials[0].node_tree
    shader = tree.get_output_node("CYCLES").inputs["Surface"].links[0].from_node
    noise = tree.nodes.new("ShaderNodeTexNoise")
    tree.links.new(noise.outputs["Color"], shader.inputs["Color"])
    slices = part("xray_addon.settings.slices").SliceSettings(shading="cycles", size=32)
    make = {
        "image": lambda: render([cube], [view((4, -4, 3))]),
        "slices": lambda: part("operators.slices.slicing").slice_objects([cube], slices),
        "bake": lambda: part("operators.convert.baking").read_surface(
            [cube], bpy.context.evaluated_depsgraph_get(), settings(materials="bake")
        ),
    }[what]
    bpy.ops.preferences.addon_disable(module="cycles")
    with pytest.raises(errors) as caught:
        make()
    assert caught.value.code == "no_renderer"


def test_a_picture_prints_nothing(render, cube, view, capfd):
    """Thousands of pictures would bury what a run says of its items."""
    capfd.readouterr()
    render([cube], [view((4, -4, 3))], image="cycles", samples=1, image_size=16)
    os.write(1, b"still there")
    assert capfd.readouterr() == ("still there", "")


def test_no_render_device(render, cube, view, errors):
    with pytest.raises(errors) as caught:
        render([cube], [view((4, -4, 3))], device="gpu")
    assert caught.value.code == "no_device"


def test_nothing_to_render(render, view, errors, xray):
    bpy.ops.object.empty_add()
    with pytest.raises(errors) as caught:
        render([bpy.context.object], [view((4, -4, 3))])
    assert caught.value.code == "no_faces"
    assert [scene.name for scene in bpy.data.scenes] == ["Scene"]


@pytest.mark.parametrize("engine", ["eevee", "workbench"])
@pytest.mark.parametrize("how", ["no library", "no display"])
def test_no_gpu_is_an_error_and_no_crash(
    part, render, cube, view, errors, monkeypatch, engine, how
):
    class Library:
        """EGL where nothing can be drawn on."""

        class eglGetPlatformDisplay:  # noqa: N801 - EGL's own names
            def __new__(cls, *_):
                return None

        class eglInitialize:  # noqa: N801
            def __new__(cls, *_):
                return 0

    def load(_):
        if how == "no library":
            raise OSError("libEGL.so.1: cannot open shared object file")
        return Library

    studio = part("operators.dataset.studio")
    monkeypatch.setattr(studio.ctypes, "CDLL", load)
    monkeypatch.setattr(studio.sys, "platform", "linux")
    with pytest.raises(errors) as caught:
        render([cube], [view((4, -4, 3))], image=engine)
    assert caught.value.code == "no_gpu"
    assert "Cycles" in caught.value.remedy


# The other renderers


@pytest.mark.parametrize("engine", ["workbench", "eevee"])
def test_what_draws_with_the_gpu(part, render, iou, toadstool, engine):
    if not os.environ.get("XRAY_TEST_GPU_RENDERERS"):
        pytest.skip("set XRAY_TEST_GPU_RENDERERS to render with EEVEE and Workbench (a minute)")
    assert part("operators.dataset.studio").can_draw()
    objects, camera = toadstool
    (picture,) = render(objects, [camera], image=engine)
    assert iou(picture, camera, objects) > 0.95
    shown = picture[picture[..., 3] == 255][:, :3].astype(int)
    assert (shown.min(axis=1) > 180).sum() > 10
    assert (shown[:, 0] - shown[:, 1] > 90).sum() > 10


def test_the_built_in_shader_is_antialiased_and_reproducible(render, iou, toadstool):
    objects, camera = toadstool
    options = {"image": "cast", "lights": "random"}
    first, again = (render(objects, [camera], 5, **options)[0] for _ in range(2))
    (other,) = render(objects, [camera], 6, **options)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    # Two of a pixel's four rays are half of it and count as seen.
    assert iou(first, camera, objects) > 0.97
    assert set(np.unique(first[..., 3])) == {0, 64, 128, 191, 255}
