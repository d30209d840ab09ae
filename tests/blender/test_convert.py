"""Blender data to arrays and back: what is captured is what Blender shows."""

from __future__ import annotations

import math

import bpy
import numpy as np
import pytest
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Matrix, Vector


def face_normals(surface) -> np.ndarray:
    a, b, c = (surface.vertices[surface.faces[:, i]].astype(float) for i in range(3))
    normal = np.cross(b - a, c - a)
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def points_outwards(surface) -> bool:
    """Whether a convex surface's faces and corner normals look away from its middle."""
    middle = surface.bounds.mean(axis=0)
    away = surface.vertices[surface.faces].mean(axis=1) - middle
    faces = np.einsum("ij,ij->i", face_normals(surface), away)
    corners = np.einsum("ikj,ij->ik", surface.corner_normals, away)
    return bool((faces > 0).all() and (corners > 0).all())


def new_material(color=(0.5, 0.25, 0.125)):
    material = bpy.data.materials.new("Material")
    if bpy.app.version < (5, 0, 0):
        material.use_nodes = True
    shader = next(n for n in material.node_tree.nodes if n.bl_idname == "ShaderNodeBsdfPrincipled")
    shader.inputs["Base Color"].default_value = (*color, 1.0)
    return material, shader


def new_image(pixels: np.ndarray, **options):
    """An image of (h, w, 3) values, row 0 at the top."""
    height, width = pixels.shape[:2]
    image = bpy.data.images.new("Image", width, height, **options)
    rgba = np.ones((height, width, 4), np.float32)
    rgba[..., :3] = pixels[::-1]
    image.pixels.foreach_set(rgba.reshape(-1))
    image.update()
    return image


def add_grid(collection=None):
    """A unit square in the xy plane whose UVs are its x and y."""
    mesh = bpy.data.meshes.new("Square")
    mesh.from_pydata([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)], [], [(0, 1, 2, 3)])
    layer = mesh.uv_layers.new(name="UVMap")
    layer.uv.foreach_set("vector", [0, 0, 1, 0, 1, 1, 0, 1])
    obj = bpy.data.objects.new("Square", mesh)
    (collection or bpy.context.collection).objects.link(obj)
    return obj


# Geometry


def test_a_cube_in_world_space(cube, surface_of):
    cube.location = (1, 2, 3)
    surface = surface_of(cube)
    assert len(surface.faces) == 12
    assert np.allclose(surface.bounds, [[0, 1, 2], [2, 3, 4]])
    assert points_outwards(surface)


def test_modifiers_count(cube, surface_of):
    cube.modifiers.new("Array", "ARRAY").count = 3
    surface = surface_of(cube)
    assert len(surface.faces) == 36
    assert np.allclose(np.ptp(surface.bounds, axis=0), (6, 2, 2))


def test_parents_count(cube, surface_of):
    parent = bpy.data.objects.new("Parent", None)
    bpy.context.collection.objects.link(parent)
    parent.location, parent.scale = (10, 0, 0), (2, 2, 2)
    cube.parent = parent
    assert np.allclose(surface_of(cube).bounds, [[8, -2, -2], [12, 2, 2]])


@pytest.mark.parametrize("scale", [(-1, 1, 1), (-1, -2, -1), (1, 1, -0.5)])
def test_a_mirrored_cube_still_faces_outwards(cube, surface_of, scale):
    cube.scale = scale
    assert points_outwards(surface_of(cube))


def test_a_mirrored_parent_turns_no_face_inside_out(cube, surface_of):
    parent = bpy.data.objects.new("Parent", None)
    bpy.context.collection.objects.link(parent)
    parent.scale, parent.rotation_euler = (1, -3, 1), (0.3, 0.2, 0.1)
    cube.parent, cube.rotation_euler = parent, (0.5, 0, 0.7)
    assert points_outwards(surface_of(cube))


def test_collection_instances_count(cube, surface_of):
    inner = bpy.data.collections.new("Inner")
    inner.objects.link(cube)
    bpy.context.collection.objects.unlink(cube)
    outer = bpy.data.collections.new("Outer")
    for x in (0, 5):
        holder = bpy.data.objects.new("Inner Instance", None)
        holder.instance_type, holder.instance_collection = "COLLECTION", inner
        holder.location.x = x
        outer.objects.link(holder)
    holder = bpy.data.objects.new("Outer Instance", None)
    holder.instance_type, holder.instance_collection = "COLLECTION", outer
    holder.scale = (-1, 1, 1)
    bpy.context.collection.objects.link(holder)
    surface = surface_of(holder)
    assert len(surface.faces) == 24
    assert np.allclose(surface.bounds, [[-6, -1, -1], [1, 1, 1]])


def test_geometry_nodes_instances_count(cube, surface_of):
    group = bpy.data.node_groups.new("Instances", "GeometryNodeTree")
    group.interface.new_socket("Geometry", in_out="INPUT", socket_type="NodeSocketGeometry")
    group.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    source, result = group.nodes.new("NodeGroupInput"), group.nodes.new("NodeGroupOutput")
    scatter = group.nodes.new("GeometryNodeInstanceOnPoints")
    ball = group.nodes.new("GeometryNodeMeshIcoSphere")
    ball.inputs["Radius"].default_value = 0.1
    group.links.new(source.outputs[0], scatter.inputs["Points"])
    group.links.new(ball.outputs["Mesh"], scatter.inputs["Instance"])
    group.links.new(scatter.outputs["Instances"], result.inputs[0])
    cube.modifiers.new("Nodes", "NODES").node_group = group
    surface = surface_of(cube)
    assert len(surface.faces) == 8 * 20  # the cube itself gives way to a ball at each corner
    assert np.allclose(surface.bounds, [[-1.1] * 3, [1.1] * 3], atol=0.02)


def test_only_the_given_objects_count(cube, surface_of):
    bpy.ops.mesh.primitive_cube_add(location=(9, 0, 0))
    assert len(surface_of(cube).faces) == 12
    assert len(surface_of(cube, bpy.context.object).faces) == 24


def test_edit_mode_changes_count(cube, surface_of):
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.mesh.select_all(action="SELECT")
    bpy.ops.transform.translate(value=(5, 0, 0))
    assert np.allclose(surface_of(cube).bounds, [[4, -1, -1], [6, 1, 1]])
    bpy.ops.object.mode_set(mode="OBJECT")


@pytest.mark.parametrize(
    "add",
    [
        lambda: bpy.ops.object.text_add(),
        lambda: bpy.ops.surface.primitive_nurbs_surface_sphere_add(),
        lambda: bpy.ops.object.metaball_add(),
    ],
)
def test_what_becomes_a_mesh_counts(surface_of, add):
    add()
    assert len(surface_of(bpy.context.object).faces) > 10


def test_a_curve_with_depth_counts(surface_of):
    bpy.ops.curve.primitive_bezier_circle_add()
    bpy.context.object.data.bevel_depth = 0.1
    assert len(surface_of(bpy.context.object).faces) > 100


def test_nothing_to_see_says_so(surface_of, part):
    bpy.ops.object.empty_add()
    with pytest.raises(part("xray_addon.errors").XRayError, match="no faces") as caught:
        surface_of(bpy.context.object)
    assert caught.value.code == "no_faces"


# Normals


def test_flat_faces_have_their_own_normals(cube, surface_of):
    surface = surface_of(cube)
    assert np.allclose(surface.corner_normals, face_normals(surface)[:, None], atol=1e-6)


def test_smooth_faces_share_normals_at_their_vertices(surface_of):
    bpy.ops.mesh.primitive_ico_sphere_add(subdivisions=3)
    bpy.ops.object.shade_smooth()
    surface = surface_of(bpy.context.object)
    direction = surface.vertices[surface.faces]
    assert np.allclose(surface.corner_normals, direction, atol=0.02)


def test_normals_stay_upright_under_uneven_scale(surface_of):
    bpy.ops.mesh.primitive_plane_add()
    bpy.context.object.rotation_euler = (0, math.radians(45), 0)
    holder = bpy.data.objects.new("Holder", None)
    bpy.context.collection.objects.link(holder)
    holder.scale = (1, 1, 3)
    bpy.context.object.parent = holder
    surface = surface_of(bpy.context.object)
    assert np.allclose(surface.corner_normals, face_normals(surface)[:, None], atol=1e-5)


# Colours


def test_a_base_colour_is_encoded(cube, surface_of):
    cube.data.materials.append(new_material((0.5, 0.25, 0.125))[0])
    (material,) = surface_of(cube).materials
    assert np.allclose(material.base_color, (0.735357, 0.537099, 0.388573), atol=1e-5)
    assert material.texture is None


def test_faces_keep_their_materials(cube, surface_of):
    for color in ((1, 0, 0), (0, 0, 1)):
        cube.data.materials.append(new_material(color)[0])
    cube.data.polygons[2].material_index = 1
    surface = surface_of(cube)
    colors = np.array([m.base_color for m in surface.materials])[surface.face_material]
    assert (colors == (0, 0, 1)).all(axis=1).sum() == 2
    assert (colors == (1, 0, 0)).all(axis=1).sum() == 10


def test_the_objects_own_materials_go_before_the_meshs(cube, surface_of):
    cube.data.materials.append(new_material((1, 0, 0))[0])
    twin = bpy.data.objects.new("Twin", cube.data)
    bpy.context.collection.objects.link(twin)
    twin.location.x = 5
    twin.material_slots[0].link = "OBJECT"
    twin.material_slots[0].material = new_material((0, 1, 0))[0]
    surface = surface_of(cube, twin)
    colors = np.array([m.base_color for m in surface.materials])[surface.face_material]
    right = surface.vertices[surface.faces].mean(axis=1)[:, 0] > 2.5
    assert (colors[right] == (0, 1, 0)).all()
    assert (colors[~right] == (1, 0, 0)).all()


def test_a_texture_keeps_its_bytes(surface_of, part):
    random = np.random.default_rng(3)
    pixels = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    square = add_grid()
    material, shader = new_material()
    node = material.node_tree.nodes.new("ShaderNodeTexImage")
    node.image = new_image(pixels / 255.0)
    material.node_tree.links.new(node.outputs["Color"], shader.inputs["Base Color"])
    square.data.materials.append(material)
    surface = surface_of(square)
    assert np.array_equal(surface.materials[0].texture[..., :3], pixels)
    assert surface.materials[0].base_color == (1.0, 1.0, 1.0)
    # The picture of the square, seen from above, is the texture.
    camera = part("xray_addon.camera").Camera(
        4, 4, 2 * math.atan(0.5), np.array(Matrix.Translation((0.5, 0.5, 1.0)))
    )
    seen = part("xray_addon.casting").cast(surface, camera, 1)
    assert np.allclose(seen.color[0] * 255, pixels, atol=0.51)


def test_a_float_image_is_linear_light(convert):
    image = new_image(np.full((2, 2, 3), 0.5), float_buffer=True)
    assert (convert.texture_from_image(image)[..., :3] == 188).all()  # round(255 * 0.7354)


def test_a_missing_image_is_left_out(surface_of):
    square = add_grid()
    material, shader = new_material()
    node = material.node_tree.nodes.new("ShaderNodeTexImage")
    node.image = bpy.data.images.new("Gone", 4, 4)
    node.image.source = "FILE"
    node.image.filepath = "/nowhere/gone.png"
    material.node_tree.links.new(node.outputs["Color"], shader.inputs["Base Color"])
    square.data.materials.append(material)
    assert surface_of(square).materials[0].texture is None


def test_the_uv_map_that_the_texture_reads(surface_of):
    square = add_grid()
    other = square.data.uv_layers.new(name="Other")
    other.uv.foreach_set("vector", [0.5] * 8)
    material, shader = new_material()
    nodes, links = material.node_tree.nodes, material.node_tree.links
    image, uv = nodes.new("ShaderNodeTexImage"), nodes.new("ShaderNodeUVMap")
    image.image, uv.uv_map = new_image(np.zeros((2, 2, 3))), "Other"
    links.new(image.outputs["Color"], shader.inputs["Base Color"])
    square.data.materials.append(material)
    square.data.uv_layers["UVMap"].active_render = True
    assert surface_of(square).corner_uvs.max() == 1.0
    links.new(uv.outputs["UV"], image.inputs["Vector"])
    assert (surface_of(square).corner_uvs == 0.5).all()


def test_a_mapping_node_moves_the_uvs(surface_of):
    square = add_grid()
    material, shader = new_material()
    nodes, links = material.node_tree.nodes, material.node_tree.links
    image, mapping = nodes.new("ShaderNodeTexImage"), nodes.new("ShaderNodeMapping")
    image.image = new_image(np.zeros((2, 2, 3)))
    mapping.inputs["Scale"].default_value = (2, 3, 1)
    mapping.inputs["Location"].default_value = (0.5, 0.25, 0)
    links.new(mapping.outputs["Vector"], image.inputs["Vector"])
    links.new(image.outputs["Color"], shader.inputs["Base Color"])
    square.data.materials.append(material)
    uvs = surface_of(square).corner_uvs.reshape(-1, 2)
    assert np.allclose([uvs.min(axis=0), uvs.max(axis=0)], [[0.5, 0.25], [2.5, 3.25]])


def test_a_texture_times_a_factor(surface_of):
    square = add_grid()
    material, shader = new_material()
    nodes, links = material.node_tree.nodes, material.node_tree.links
    image, mix = nodes.new("ShaderNodeTexImage"), nodes.new("ShaderNodeMix")
    image.image = new_image(np.ones((2, 2, 3)))
    mix.data_type, mix.blend_type = "RGBA", "MULTIPLY"
    inputs = {socket.identifier: socket for socket in mix.inputs}
    inputs["Factor_Float"].default_value = 1.0
    inputs["B_Color"].default_value = (0.5, 1.0, 0.0, 1.0)
    links.new(image.outputs["Color"], inputs["A_Color"])
    result = next(s for s in mix.outputs if s.identifier == "Result_Color")
    links.new(result, shader.inputs["Base Color"])
    square.data.materials.append(material)
    (seen,) = surface_of(square).materials
    assert seen.texture is not None
    assert np.allclose(seen.base_color, (0.735357, 1.0, 0.0), atol=1e-5)


@pytest.mark.parametrize("domain", ["POINT", "CORNER"])
@pytest.mark.parametrize("kind", ["FLOAT_COLOR", "BYTE_COLOR"])
def test_colour_attributes_are_encoded(surface_of, domain, kind):
    square = add_grid()
    attribute = square.data.color_attributes.new("Paint", kind, domain)
    attribute.data.foreach_set("color_srgb", [0.2, 0.4, 0.6, 1.0] * 4)
    surface = surface_of(square)  # without a material it shows
    assert np.allclose(surface.corner_colors, (0.2, 0.4, 0.6), atol=0.002)
    assert surface.materials[0].base_color == (1.0, 1.0, 1.0)


def test_a_colour_attribute_counts_where_the_material_reads_it(surface_of):
    square = add_grid()
    attribute = square.data.color_attributes.new("Paint", "FLOAT_COLOR", "CORNER")
    attribute.data.foreach_set("color_srgb", [0.2, 0.4, 0.6, 1.0] * 4)
    material, shader = new_material()
    square.data.materials.append(material)
    assert surface_of(square).corner_colors is None
    node = material.node_tree.nodes.new("ShaderNodeVertexColor")
    node.layer_name = "Paint"
    material.node_tree.links.new(node.outputs["Color"], shader.inputs["Base Color"])
    assert np.allclose(surface_of(square).corner_colors, (0.2, 0.4, 0.6), atol=0.002)


# Out of arrays


def triangle_surface(part, **options):
    return part("xray_addon.surface").Surface(
        np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0.3], [0, 1, 0]], np.float32),
        np.array([[0, 1, 2], [0, 2, 3]]),
        **options,
    )


def test_a_surface_comes_back_as_it_was(convert, part, surface_of):
    random = np.random.default_rng(1)
    colors = random.integers(0, 256, (2, 3, 3)) / 255
    normals = random.normal(size=(2, 3, 3)) * 0.2 + (0, 0, 1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    texture = random.integers(0, 256, (3, 5, 3), dtype=np.uint8)
    material = part("xray_addon.surface").Material
    surface = triangle_surface(
        part,
        corner_colors=colors,
        corner_normals=normals,
        corner_uvs=random.random((2, 3, 2)),
        face_material=np.array([1, 0]),
        materials=(material((0.5, 0.6, 0.7)), material((1.0, 1.0, 1.0), texture)),
    )
    obj = convert.add_object(convert.mesh_from_surface(surface, "Made"), bpy.context.collection)
    back = surface_of(obj)
    assert np.allclose(back.vertices, surface.vertices)
    assert np.array_equal(back.faces, surface.faces)
    assert np.allclose(back.corner_colors, colors, atol=1e-6)
    assert np.allclose(back.corner_normals, normals, atol=2e-3)
    assert np.allclose(back.corner_uvs, surface.corner_uvs, atol=1e-6)
    assert np.array_equal(back.face_material, surface.face_material)
    second, first = back.materials
    assert np.array_equal(first.texture[..., :3], texture)
    assert np.allclose(second.base_color, (0.5, 0.6, 0.7), atol=1e-5)


def test_a_surface_without_normals_is_flat(convert, part):
    mesh = convert.mesh_from_surface(triangle_surface(part), "Flat")
    assert not any(polygon.use_smooth for polygon in mesh.polygons)
    assert mesh.materials[0].name.startswith("Flat")


def test_smooth_normals_need_no_stored_ones(convert, surface_of):
    bpy.ops.mesh.primitive_ico_sphere_add(subdivisions=3)
    bpy.ops.object.shade_smooth()
    surface = surface_of(bpy.context.object)
    mesh = convert.mesh_from_surface(surface, "Ball")
    assert not mesh.has_custom_normals
    assert all(polygon.use_smooth for polygon in mesh.polygons)


def test_points_carry_colours_and_normals(convert, part):
    points = part("xray_addon.xray").Points(
        np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)
    )
    mesh = convert.mesh_from_points(points, "Points")
    assert (len(mesh.vertices), len(mesh.polygons)) == (3, 0)
    assert tuple(mesh.color_attributes["Color"].data[1].color_srgb) == (0, 1, 0, 1)
    assert tuple(mesh.attributes["normal"].data[2].vector) == (0, 0, 1)


# Cameras


def scene_camera():
    data = bpy.data.cameras.new("Camera")
    obj = bpy.data.objects.new("Camera", data)
    bpy.context.collection.objects.link(obj)
    obj.location, obj.rotation_euler = (2.0, -3.0, 1.5), (1.2, 0.1, 0.5)
    bpy.context.scene.camera = obj
    return obj, data


def project(camera, points: np.ndarray) -> np.ndarray:
    """Pixel (N, 2) from the left and the top edge of world points (N, 3)."""
    local = (points - camera.position) @ camera.camera_to_world[:3, :3]
    scale = camera.focal / -local[:, 2:]
    return local[:, :2] * scale * (1, -1) + (camera.cx, camera.cy)


@pytest.mark.parametrize("fit", ["AUTO", "HORIZONTAL", "VERTICAL"])
@pytest.mark.parametrize("resolution", [(640, 480), (300, 500), (256, 256)])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.2, -0.13)])
def test_a_camera_sees_what_blender_sees(convert, fit, resolution, shift):
    obj, data = scene_camera()
    render = bpy.context.scene.render
    render.resolution_x, render.resolution_y = resolution
    render.resolution_percentage = 50
    data.sensor_fit, data.sensor_width, data.sensor_height, data.lens = fit, 30, 20, 40
    data.shift_x, data.shift_y = shift
    obj.scale = (2, 2, 2)  # Blender's cameras ignore it
    bpy.context.view_layer.update()
    camera = convert.camera_from_object(obj, render)
    assert (camera.width, camera.height) == (resolution[0] // 2, resolution[1] // 2)
    points = np.random.default_rng(0).normal(size=(20, 3)) * 0.3
    expected = [world_to_camera_view(bpy.context.scene, obj, Vector(p))[:2] for p in points]
    expected = np.array(expected) * (1, -1) + (0, 1)
    seen = project(camera, points) / (camera.width, camera.height)
    assert np.allclose(seen, expected, atol=1e-5)


def test_a_size_scales_the_longer_side(convert):
    obj, _ = scene_camera()
    render = bpy.context.scene.render
    render.resolution_x, render.resolution_y, render.resolution_percentage = 1920, 1080, 100
    bpy.context.view_layer.update()
    camera = convert.camera_from_object(obj, render, 256)
    assert (camera.width, camera.height) == (256, 144)
    whole = convert.camera_from_object(obj, render)
    points = np.random.default_rng(0).normal(size=(20, 3)) * 0.3
    assert np.allclose(project(camera, points), project(whole, points) * 256 / 1920, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data, _: setattr(data, "type", "ORTHO"), "orthographic"),
        (lambda data, _: setattr(data, "type", "PANO"), "panoramic"),
        (lambda _, render: setattr(render, "pixel_aspect_x", 2.0), "not square"),
    ],
)
def test_other_cameras_are_refused(convert, part, change, reason):
    obj, data = scene_camera()
    change(data, bpy.context.scene.render)
    with pytest.raises(part("xray_addon.errors").XRayError, match=reason):
        convert.camera_from_object(obj, bpy.context.scene.render)


def test_no_camera_says_so(convert, part):
    with pytest.raises(part("xray_addon.errors").XRayError, match="no camera"):
        convert.camera_from_object(None, bpy.context.scene.render)


@pytest.mark.parametrize("size", [(256, 256), (320, 200), (100, 300)])
def test_a_camera_comes_back_as_it_was(convert, part, size):
    camera_type = part("xray_addon.camera").Camera
    pose = camera_type.look_at((1, -2, 0.5), (0, 0, 0.1)).camera_to_world
    camera = camera_type(*size, 0.9, pose, cx=size[0] * 0.45, cy=size[1] * 0.6)
    obj = convert.add_camera(camera, "Camera", bpy.context.collection)
    render = bpy.context.scene.render
    render.resolution_x, render.resolution_y = size
    bpy.context.view_layer.update()
    back = convert.camera_from_object(obj, render)
    assert np.allclose(back.camera_to_world, pose, atol=1e-6)
    assert np.allclose((back.fov_x, back.cx, back.cy), (0.9, camera.cx, camera.cy), atol=1e-4)
