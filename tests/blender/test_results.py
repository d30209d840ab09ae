"""What a generated mesh is made into."""

from __future__ import annotations

import math

import bpy
import numpy as np
import pytest


def make_ball(part, convert, radius=0.5, steps=40):
    surface_type = part("xray_addon.surface").Surface
    theta = np.linspace(0, np.pi, steps + 1)[1:-1]
    phi = np.linspace(0, 2 * np.pi, 2 * steps, endpoint=False)
    ring = np.stack(
        [
            np.sin(theta)[:, None] * np.cos(phi),
            np.sin(theta)[:, None] * np.sin(phi),
            np.repeat(np.cos(theta)[:, None], len(phi), axis=1),
        ],
        axis=-1,
    ).reshape(-1, 3)
    vertices = np.concatenate([[[0, 0, 1.0]], ring, [[0, 0, -1.0]]])
    count, last = len(phi), len(vertices) - 1
    faces = []
    for j in range(count):
        k = (j + 1) % count
        faces += [(0, 1 + j, 1 + k), (last, last - count + k, last - count + j)]
        for i in range(len(theta) - 1):
            a, b = 1 + i * count, 1 + (i + 1) * count
            faces += [(a + j, b + j, b + k), (a + j, b + k, a + k)]
    faces = np.array(faces)
    colors = np.where(vertices[:, 1:2] < 0, [[1.0, 0, 0]], [[0, 0, 1.0]])
    surface = surface_type(
        radius * vertices, faces, corner_normals=vertices[faces], corner_colors=colors[faces]
    )
    mesh = convert.mesh_from_surface(surface, "Ball")
    return convert.add_object(mesh, bpy.context.scene.collection)


@pytest.fixture
def obj(part, convert):
    """A ball of radius 0.5, red in front (-y) and blue behind."""
    return make_ball(part, convert)


@pytest.fixture
def finish(part):
    settings = part("xray_addon.settings").ResultSettings
    return lambda obj, **options: part("operators.results").finish(obj, settings(**options))


def colors_at(surface) -> np.ndarray:
    """(M, 3) the mean colour of each face as a capture sees it."""
    return surface.corner_colors.mean(axis=1)


def front(surface) -> np.ndarray:
    return surface.vertices[surface.faces][..., 1].mean(axis=1)


def test_the_default_changes_nothing(obj, finish, surface_of):
    before = surface_of(obj)
    assert finish(obj) == 1.0
    after = surface_of(obj)
    assert np.array_equal(after.vertices, before.vertices)
    assert np.array_equal(after.faces, before.faces)
    assert np.array_equal(after.corner_colors, before.corner_colors)
    assert obj["xray_result"]["topology"] == "triangles"


def test_quads_whose_number_stays_off_are_kept(obj, part, finish, monkeypatch):
    monkeypatch.setattr(part("operators.results.finishing"), "TRIES", 1)
    finish(obj, topology="quads", target_faces=50)
    assert abs(len(obj.data.polygons) - 50) > 2
    assert {len(polygon.vertices) for polygon in obj.data.polygons} == {4}


@pytest.mark.parametrize(("topology", "sides"), [("triangles", 3), ("quads", 4)])
def test_about_so_many_faces(obj, finish, surface_of, topology, sides):
    finish(obj, topology=topology, target_faces=2000)
    assert len(obj.data.polygons) == pytest.approx(2000, rel=0.1)
    assert {face.loop_total for face in obj.data.polygons} == {sides}
    surface = surface_of(obj)
    assert surface.is_watertight
    assert np.allclose(np.linalg.norm(surface.vertices, axis=1), 0.5, atol=0.03)
    # Each side still has its colour.
    colors, y = colors_at(surface), front(surface)
    assert np.abs(colors[y < -0.1] - (1, 0, 0)).max() < 0.02
    assert np.abs(colors[y > 0.1] - (0, 0, 1)).max() < 0.02
    assert obj.name == obj.data.name == "Ball"
    assert len(bpy.data.meshes) == 1


def test_quads_keep_thin_parts(part, convert, finish, surface_of):
    """A dumbbell whose bar is thinner than the voxels of so few quads would be."""
    surface_type = part("xray_addon.surface").Surface
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    height = np.array([-0.5, -0.45, -0.3, -0.25, -0.24, 0, 0.24, 0.25, 0.3, 0.45, 0.5])
    radius = np.array([0.02, 0.2, 0.2, 0.1, 0.01, 0.01, 0.01, 0.1, 0.2, 0.2, 0.02])
    rings = np.stack(
        [
            np.outer(radius, np.cos(turns)),
            np.outer(radius, np.sin(turns)),
            height[:, None] + 0 * turns,
        ],
        axis=-1,
    )
    vertices = np.concatenate([rings.reshape(-1, 3), [[0, 0, -0.5], [0, 0, 0.5]]])
    # Oblique, so that the bar does not lie along the voxels.
    angle = 0.6
    vertices = vertices @ [
        [1, 0, 0],
        [0, np.cos(angle), np.sin(angle)],
        [0, -np.sin(angle), np.cos(angle)],
    ]
    count, faces = len(turns), []
    for j in range(count):
        k = (j + 1) % count
        faces += [(len(vertices) - 2, k, j)]
        faces += [(len(vertices) - 1, len(vertices) - 2 - count + j, len(vertices) - 2 - count + k)]
        for i in range(len(height) - 1):
            a, b = i * count, (i + 1) * count
            faces += [(a + j, a + k, b + k), (a + j, b + k, b + j)]
    mesh = convert.mesh_from_surface(surface_type(vertices, np.array(faces)), "Dumbbell")
    obj = convert.add_object(mesh, bpy.context.scene.collection)
    finishing = part("operators.results.finishing")
    assert finishing._piece_count(mesh) == 1
    finish(obj, topology="quads", target_faces=600)
    assert finishing._piece_count(obj.data) == 1
    assert surface_of(obj).is_watertight
    assert {len(polygon.vertices) for polygon in obj.data.polygons} == {4}
    assert np.ptp([vertex.co.z for vertex in obj.data.vertices]) > 0.9 * np.ptp(vertices[:, 2])


def test_more_faces_than_there_are_changes_nothing(obj, finish):
    count = len(obj.data.polygons)
    finish(obj, target_faces=10 * count)
    assert len(obj.data.polygons) == count


@pytest.mark.parametrize(("axis", "kept"), [("x", 1), ("y", -1), ("z", 1)])
def test_symmetry_mirrors_the_half_that_is_kept(obj, finish, surface_of, axis, kept):
    number = "xyz".index(axis)
    # A dent in the half that goes, and a spike in the half that stays; off the origin.
    for vertex in obj.data.vertices:
        side = vertex.co[number] * kept
        if side > 0.48:
            vertex.co[number] += 0.2 * kept
        if side < -0.48:
            vertex.co[number] += 0.2 * kept
    low, high = surface_of(obj).bounds[:, number]
    middle, reach = (low + high) / 2, (high - low) / 2
    finish(obj, symmetry=axis)
    surface = surface_of(obj)
    assert surface.is_watertight
    low, high = surface.bounds[:, number]
    assert (low + high) / 2 == pytest.approx(middle, abs=1e-4)
    assert (high - low) / 2 == pytest.approx(reach, abs=1e-4)
    assert reach == pytest.approx(0.59, abs=0.01)
    mirrored = surface.vertices.copy()
    mirrored[:, number] = 2 * middle - mirrored[:, number]
    assert {tuple(p) for p in np.round(mirrored, 3) + 0.0} == {
        tuple(p) for p in np.round(surface.vertices, 3) + 0.0
    }
    if axis == "y":  # all red now, as what was seen
        assert colors_at(surface)[:, 0].min() > 0.9


@pytest.mark.parametrize("unit", [1.0, 0.01])
def test_the_height_is_in_metres(obj, finish, surface_of, unit):
    bpy.context.scene.unit_settings.scale_length = unit
    factor = finish(obj, height=1.8)
    low, high = surface_of(obj).bounds
    assert (high - low)[2] * unit == pytest.approx(1.8, abs=1e-5)
    assert factor == pytest.approx(1.8 / unit)
    assert tuple(obj.scale) == (1, 1, 1)


@pytest.mark.parametrize("faces", [0, 1000])
def test_colours_as_a_texture(obj, finish, surface_of, part, faces):
    finish(obj, color="texture", bake_size=256, target_faces=faces)
    mesh = obj.data
    assert not mesh.color_attributes
    assert [layer.name for layer in mesh.uv_layers] == ["UVMap"]
    uvs = np.array([tuple(item.vector) for item in mesh.uv_layers[0].uv])
    assert uvs.min() >= 0
    assert uvs.max() <= 1
    (material,) = surface_of(obj).materials
    assert material.texture.shape[:2] == (256, 256)
    # What a capture of the textured mesh sees: red in front, blue behind.
    surface = surface_of(obj)
    camera, cast = part("xray_addon.camera").Camera, part("xray_addon.casting").cast
    for y, color in ((-2, (1, 0, 0)), (2, (0, 0, 1))):
        xray = cast(surface, camera.look_at((0, y, 0), width=64, height=64), 1)
        near = np.abs(xray.hit_color - color).max(axis=1) < 0.05
        assert near.mean() > 0.95
    assert len(bpy.data.materials) == 1
    assert len(bpy.data.scenes) == 1


@pytest.fixture
def textured(obj, convert, part, surface_of):
    """The ball with a texture, half red and half blue, in place of colours at its corners."""
    surface, material = surface_of(obj), part("xray_addon.surface").Material
    bpy.data.objects.remove(obj)
    texture = np.zeros((16, 32, 3), np.uint8)
    texture[:, :16], texture[:, 16:] = (255, 0, 0), (0, 0, 255)
    behind = surface.vertices[surface.faces][..., 1].mean(axis=1) > 0
    surface.corner_uvs = np.where(behind[:, None, None], (0.75, 0.5), (0.25, 0.5)) + np.zeros(
        (len(surface.faces), 3, 2)
    )
    surface.corner_colors = None
    surface.materials = [material(texture=texture)]
    surface.face_material = np.zeros(len(surface.faces), np.int64)
    mesh = convert.mesh_from_surface(surface, "Textured")
    return convert.add_object(mesh, bpy.context.scene.collection)


@pytest.mark.parametrize(
    "options",
    [
        {"topology": "quads", "target_faces": 3000},
        {"topology": "quads", "target_faces": 3000, "color": "texture", "bake_size": 256},
        {"target_faces": 1000},
        {"color": "texture", "bake_size": 256},
        {"color": "attribute"},
        {"color": "attribute", "target_faces": 1000},
    ],
    ids=["quads", "quads and texture", "fewer", "texture", "attribute", "fewer with attribute"],
)
def test_a_generators_texture_is_not_lost(textured, finish, surface_of, part, options):
    is_reshaped = part("operators.results.finishing").is_reshaped
    assert is_reshaped(textured.data, part("xray_addon.settings").ResultSettings(**options))
    finish(textured, **options)
    surface = surface_of(textured)
    is_quads = options.get("topology") == "quads"
    has_texture = options.get("color", "attribute" if is_quads else "keep") != "attribute"
    assert bool(textured.data.color_attributes) is not has_texture
    nodes = textured.data.materials[0].node_tree.nodes
    assert any(node.type == "TEX_IMAGE" for node in nodes) is has_texture
    camera, cast = part("xray_addon.camera").Camera, part("xray_addon.casting").cast
    for y, color in ((-2, (1, 0, 0)), (2, (0, 0, 1))):
        xray = cast(surface, camera.look_at((0, y, 0), width=64, height=64), 1)
        near = np.abs(xray.hit_color - color).max(axis=1) < 0.05
        assert near.mean() > 0.9
    assert len(surface.materials) == 1


def test_joined_meshes_keep_the_colours_of_each(textured, finish, surface_of, convert, part):
    """Each has a texture of its own, and a third one colours at its vertices."""
    green, plain = textured.copy(), textured.copy()
    for other, color in ((green, (0, 255, 0)), (plain, (255, 255, 0))):
        surface = surface_of(textured)
        surface.vertices = surface.vertices + np.array((3 if other is green else 6, 0, 0))
        if other is green:
            texture = np.full((8, 8, 3), color, np.uint8)
            surface.materials = [part("xray_addon.surface").Material(texture=texture)]
        else:
            surface.corner_uvs, surface.materials = None, []
            surface.corner_colors = np.full((len(surface.faces), 3, 3), color) / np.float32(255)
        other.data = convert.mesh_from_surface(surface, "Other")
        bpy.context.scene.collection.objects.link(other)
    for each in bpy.context.scene.objects:
        each.select_set(True)
    bpy.context.view_layer.objects.active = textured
    assert bpy.ops.object.join() == {"FINISHED"}
    finish(textured, target_faces=6000, topology="quads")
    surface = surface_of(textured)
    where = surface.vertices[surface.faces].mean(axis=1)
    colors = surface.corner_colors.mean(axis=1)
    front = where[:, 1] < -0.1
    for x, color in ((0, (1, 0, 0)), (3, (0, 1, 0)), (6, (1, 1, 0))):
        there = front & (abs(where[:, 0] - x) < 1)
        assert np.median(colors[there], axis=0) == pytest.approx(np.array(color), abs=0.05)


def test_smooth_by_angle(xray, finish, convert, part):
    bpy.ops.mesh.primitive_cylinder_add(vertices=64)
    obj = bpy.context.object
    finish(obj, smooth_angle=30.0)
    sharp = np.array([edge.use_edge_sharp for edge in obj.data.edges])
    assert sharp.sum() == 128  # both rims, none of the 64 sides
    assert all(face.use_smooth for face in obj.data.polygons)


def test_an_asset_with_a_preview(obj, finish):
    assert obj.asset_data is None
    finish(obj, asset=True)
    assert obj.asset_data is not None
    width, height = obj.preview.image_size
    assert (width, height) == (256, 256)
    pixels = np.array(obj.preview.image_pixels_float[:]).reshape(256, 256, 4)
    shown = pixels[..., 3] > 0.5
    assert 0.4 < shown.mean() < 0.8
    assert not shown[0].any()
    assert not shown[-1].any()
    assert pixels[128, 128, 0] > 2 * pixels[128, 128, 2]  # the red front


def test_all_at_once(obj, finish, surface_of):
    finish(
        obj,
        topology="quads",
        target_faces=1500,
        symmetry="x",
        height=2.0,
        color="texture",
        bake_size=128,
        smooth_angle=60.0,
        asset=True,
    )
    surface = surface_of(obj)
    assert surface.is_watertight
    assert np.ptp(surface.vertices[:, 2]) == pytest.approx(2.0, abs=1e-4)
    assert len(obj.data.polygons) == pytest.approx(1500, rel=0.1)


@pytest.fixture
def image(tmp_path, part):
    path = tmp_path / "apple.png"
    part("xray_addon.files.png").write_png(path, np.full((8, 8, 3), 200, np.uint8))
    return path


OPTIONS = {"topology": "quads", "target_faces": 600, "height": 2.0, "smooth_angle": 40.0}
IN_BLENDER = {**OPTIONS, "smooth_angle": math.radians(40.0)}


def vertices_of(obj) -> np.ndarray:
    return np.array([tuple(v.co) for v in obj.data.vertices])


def test_function_operator_panel_and_command_line_agree(fake_runtime, part, image, tmp_path):
    settings = part("xray_addon.settings")
    result = settings.ResultSettings(**OPTIONS)
    made = part("operators.generate.generation").generate_mesh(
        image, settings.GenerateSettings(), result=result
    )
    expected = vertices_of(made)
    assert np.ptp(expected[:, 2]) == pytest.approx(2.0, abs=1e-5)
    assert made["xray_result"].to_dict() == result.to_dict()

    assert bpy.ops.xray.generate(filepath=str(image), **IN_BLENDER) == {"FINISHED"}
    assert np.array_equal(vertices_of(bpy.context.object), expected)

    panel = bpy.context.scene.xray.generate
    for name, value in IN_BLENDER.items():
        setattr(panel, name, value)
    assert (
        part("operators.properties").settings_from_properties(settings.ResultSettings, panel)
        == result
    )

    out = tmp_path / "apple.blend"
    arguments = ["generate", str(image), *result.to_arguments(), "--out", str(out)]
    assert part("operators.command").main(arguments) == 0
    bpy.ops.wm.open_mainfile(filepath=str(out))
    assert np.array_equal(vertices_of(bpy.data.objects["apple"]), expected)


def test_layers_and_view_grow_with_the_mesh(fake_runtime, part, image, surface_of):
    settings = part("xray_addon.settings")
    bpy.context.scene.cursor.location = (5, 0, 0)
    obj = part("operators.generate.generation").generate_mesh(
        image,
        settings.GenerateSettings(),
        result=settings.ResultSettings(height=6.0),
        keep_camera=True,
        keep_layers=True,
    )
    layers = part("operators.layers.layers").layers_of(obj)
    layers.hide_viewport = layers.hide_render = False
    # The ball of radius 0.3 has grown tenfold.
    seen = surface_of(*layers.objects).vertices - (5, 0, 3)
    assert np.median(np.linalg.norm(seen, axis=1)) == pytest.approx(3.0, abs=0.05)
    (camera,) = (item for item in bpy.data.objects if item.type == "CAMERA")
    assert tuple(camera.location) == pytest.approx((5, -15, 3), abs=1e-4)
    # A rebuilt mesh lies on its layers.
    assert bpy.ops.xray.rebuild() == {"FINISHED"}
    seen = vertices_of(obj) - (0, 0, 3)
    assert np.linalg.norm(seen, axis=1) == pytest.approx(3.0, abs=0.15)


@pytest.mark.parametrize(
    "options",
    [
        {"topology": "quads", "target_faces": 1500, "color": "texture", "bake_size": 128},
        {"symmetry": "x", "smooth_angle": 40.0, "height": 2.0, "asset": True},
    ],
    ids=["new material", "old material"],
)
def test_a_second_blender_makes_the_same(obj, part, convert, finish, options):
    steps = part("operators.results.second_blender").finish_apart
    settings = part("xray_addon.settings").ResultSettings(**options)
    other = make_ball(part, convert)
    obj.data.materials[0]["old"] = True
    factor = part("operators.tasks.jobs").run(steps(obj, settings), interval=0.05)
    assert factor == pytest.approx(finish(other, **options))
    assert np.allclose(vertices_of(obj), vertices_of(other), atol=1e-6)
    assert obj["xray_result"].to_dict() == settings.to_dict()
    assert obj.data.name == "Ball"
    assert obj.data.materials[0].name == "Ball"
    assert ("old" in obj.data.materials[0]) == (settings.color == "keep")
    assert len(bpy.data.materials) == len(bpy.data.meshes) == 2
    assert not bpy.data.libraries
    assert (obj.asset_data is not None) == settings.asset
    if settings.asset:
        shown, expected = (np.array(o.preview.image_pixels_float[:]) for o in (obj, other))
        assert np.array_equal(shown, expected)


def test_a_mesh_removed_meanwhile_is_told(obj, part):
    steps = part("operators.results.second_blender").finish_apart(
        obj, part("xray_addon.settings").ResultSettings(symmetry="x")
    )
    next(steps)
    bpy.data.objects.remove(obj)
    with pytest.raises(part("xray_addon.errors").XRayError, match="removed while"):
        part("operators.tasks.jobs").run(steps, interval=0.05)


def test_a_second_blender_that_dies_leaves_the_mesh(obj, part, monkeypatch, tmp_path, caplog):
    module = part("operators.results.second_blender")
    script = tmp_path / "dies.py"
    script.write_text("print('no memory'); raise SystemExit(3)")
    monkeypatch.setattr(module.apart, "__file__", str(script))
    count = len(obj.data.polygons)
    steps = module.finish_apart(obj, part("xray_addon.settings").ResultSettings(symmetry="x"))
    with pytest.raises(part("xray_addon.errors").XRayError, match="quit unexpectedly"):
        part("operators.tasks.jobs").run(steps, interval=0.05)
    assert len(obj.data.polygons) == count
    assert "no memory" in caplog.text
