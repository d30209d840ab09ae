"""Materials that compute their colour are baked on copies, and nothing of the user's changes."""

from __future__ import annotations

import math

import bpy
import numpy as np
import pytest
from mathutils import Matrix

DATABLOCKS = (
    "scenes",
    "objects",
    "meshes",
    "materials",
    "images",
    "worlds",
    "lights",
    "cameras",
    "node_groups",
)


def datablocks() -> dict[str, list[str]]:
    return {name: sorted(x.name for x in getattr(bpy.data, name)) for name in DATABLOCKS}


def add_square(uvs=None, location=(0, 0, 0)):
    """A unit square in the xy plane; `uvs` as its corners' or none."""
    mesh = bpy.data.meshes.new("Square")
    mesh.from_pydata([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)], [], [(0, 1, 2, 3)])
    if uvs is not None:
        mesh.uv_layers.new(name="UVMap").uv.foreach_set("vector", uvs)
    obj = bpy.data.objects.new("Square", mesh)
    obj.location = location
    bpy.context.collection.objects.link(obj)
    return obj


def add_material(obj, name="Material"):
    material = bpy.data.materials.new(name)
    if bpy.app.version < (5, 0, 0):
        material.use_nodes = True
    obj.data.materials.append(material)
    shader = next(n for n in material.node_tree.nodes if n.bl_idname == "ShaderNodeBsdfPrincipled")
    return material.node_tree, shader


def from_position(obj):
    """A material whose colour, in linear light, is the position in the object."""
    tree, shader = add_material(obj)
    coordinates = tree.nodes.new("ShaderNodeTexCoord")
    tree.links.new(coordinates.outputs["Object"], shader.inputs["Base Color"])
    shader.inputs["Metallic"].default_value = 1.0  # baked, not lit: metal is not black
    return tree, shader


@pytest.fixture
def read(part):
    """Objects with the colours they show; checks that the file holds what it held."""

    def surface(*objects, **options):
        bpy.context.view_layer.update()
        before = datablocks()
        settings = part("xray_addon.settings").DatasetSettings(bake_size=64, **options)
        made, sources = part("operators.convert.baking").read_surface(
            objects, bpy.context.evaluated_depsgraph_get(), settings
        )
        assert datablocks() == before
        assert len(sources.face) == len(made.faces)
        return made

    return surface


@pytest.fixture
def seen(part):
    """Linear colours (n, n, 3) of a unit square seen from above, and its hits."""

    def look(surface, size=8, x=0.0):
        camera = part("xray_addon.camera").Camera(
            size, size, 2 * math.atan(0.5), np.array(Matrix.Translation((0.5 + x, 0.5, 1.0)))
        )
        xray = part("xray_addon.casting").cast(surface, camera, 1)
        return part("xray_addon.color").srgb_to_linear(xray.color[0]), xray.hit[0]

    return look


CENTRES = (np.arange(8) + 0.5) / 8
GOOD, OUTSIDE, FOLDED = [0, 0, 1, 0, 1, 1, 0, 1], [0, 0, 2, 0, 2, 2, 0, 2], [0] * 8


@pytest.mark.parametrize("uvs", [None, GOOD, OUTSIDE, FOLDED])
def test_a_computed_colour_is_baked(read, seen, xray, uvs):
    square = add_square(uvs)
    from_position(square)
    colors, _ = seen(read(square))
    assert np.abs(colors[..., 0] - CENTRES).max() < 0.03
    assert np.abs(colors[..., 1] - CENTRES[::-1, None]).max() < 0.03
    assert colors[..., 2].max() < 0.01


def test_nothing_is_baked_where_nothing_needs_it(read, xray, part, monkeypatch):
    square = add_square(GOOD)
    add_material(square)
    monkeypatch.setattr(part("operators.convert.baking"), "_with_baked", None)
    assert len(read(square).faces) == 2


def test_what_can_be_followed_stays_as_it_is(read, seen, xray):
    square, other = add_square(), add_square(location=(2, 0, 0))
    from_position(square)
    _, shader = add_material(other, "Plain")
    shader.inputs["Base Color"].default_value = (0.5, 0.25, 0.125, 1.0)
    surface = read(square, other)
    assert np.allclose(seen(surface, x=2.0)[0], (0.5, 0.25, 0.125), atol=1e-3)
    assert np.abs(seen(surface)[0][..., 0] - CENTRES).max() < 0.03


def test_only_the_faces_that_need_it(read, xray):
    bpy.ops.mesh.primitive_cube_add()
    cube = bpy.context.object
    add_material(cube, "Plain")
    from_position(cube)
    cube.data.polygons[0].material_index = 1
    surface = read(cube)
    textured = [m.texture is not None for m in surface.materials]
    assert textured.count(True) == 1
    assert (surface.face_material == textured.index(True)).sum() == 2


def test_modifiers_and_instances(read, seen, xray):
    square = add_square()
    from_position(square)
    array = square.modifiers.new("Array", "ARRAY")
    array.count, array.relative_offset_displace = 2, (2.0, 0.0, 0.0)
    inner = bpy.data.collections.new("Inner")
    inner.objects.link(square)
    bpy.context.collection.objects.unlink(square)
    holders = []
    for y in (0, 5):
        holder = bpy.data.objects.new("Instance", None)
        holder.instance_type, holder.instance_collection = "COLLECTION", inner
        holder.location.y = y
        bpy.context.collection.objects.link(holder)
        holders.append(holder)
    surface = read(*holders)
    assert len(surface.faces) == 8
    # The second square of the array is 2 to 3 along the object's x: red is full.
    assert np.allclose(seen(surface, x=2.0)[0][..., 0], 1.0, atol=0.01)
    assert np.abs(seen(surface)[0][..., 0] - CENTRES).max() < 0.03


def test_shaders_in_groups_mixed_with_what_glows(read, seen, xray):
    square = add_square()
    tree, shader = add_material(square)
    group = bpy.data.node_groups.new("Group", "ShaderNodeTree")
    group.interface.new_socket("Shader", in_out="OUTPUT", socket_type="NodeSocketShader")
    light = group.nodes.new("ShaderNodeEmission")
    light.inputs["Color"].default_value = (1.0, 0.0, 0.5, 1.0)
    end = group.nodes.new("NodeGroupOutput")
    group.links.new(light.outputs[0], end.inputs[0])
    inside, mix = tree.nodes.new("ShaderNodeGroup"), tree.nodes.new("ShaderNodeMixShader")
    inside.node_tree = group
    mix.inputs[0].default_value = 0.25
    shader.inputs["Base Color"].default_value = (0.0, 0.8, 0.4, 1.0)
    tree.links.new(shader.outputs[0], mix.inputs[1])
    tree.links.new(inside.outputs[0], mix.inputs[2])
    tree.links.new(mix.outputs[0], tree.get_output_node("CYCLES").inputs["Surface"])
    assert np.allclose(seen(read(square))[0], (0.25, 0.6, 0.425), atol=0.01)


def test_computed_alpha_lets_rays_through(read, seen, xray):
    square = add_square()
    tree, shader = from_position(square)
    split, below = (tree.nodes.new(f"ShaderNode{n}") for n in ("SeparateXYZ", "Math"))
    below.operation = "LESS_THAN"
    coordinates = next(n for n in tree.nodes if n.bl_idname == "ShaderNodeTexCoord")
    tree.links.new(coordinates.outputs["Object"], split.inputs[0])
    tree.links.new(split.outputs["X"], below.inputs[0])
    tree.links.new(below.outputs[0], shader.inputs["Alpha"])
    colors, hit = seen(read(square, alpha_clip=True))
    assert hit[:, :3].all()
    assert not hit[:, 5:].any()
    assert np.abs(colors[:, :3, 0] - CENTRES[:3]).max() < 0.03
    assert seen(read(square))[1].all()


def test_each_material_that_is_refused_is_named(read, part, xray):
    square = add_square()
    from_position(square)
    tree, shader = add_material(square, "Cloudy")
    noise = tree.nodes.new("ShaderNodeTexNoise")
    tree.links.new(noise.outputs["Color"], shader.inputs["Base Color"])
    with pytest.raises(part("xray_addon.errors").XRayError) as caught:
        read(square, materials="skip")
    assert caught.value.code == "needs_baking"
    assert "Material: " in caught.value.message
    assert "Cloudy: its colour goes through Noise Texture" in caught.value.message


def test_selection_mode_and_scene_stay(read, cube):
    from_position(cube)
    other = add_square(location=(5, 0, 0))
    from_position(other)
    other.select_set(False)
    scene = bpy.context.scene
    engine = scene.render.engine
    read(cube, other)
    assert bpy.context.scene == scene
    assert scene.render.engine == engine
    assert bpy.context.object == cube
    assert bpy.context.selected_objects == [cube]
    assert (cube.mode, len(cube.data.uv_layers), len(other.data.uv_layers)) == ("OBJECT", 1, 0)
    assert [slot.material.name for slot in cube.material_slots] == ["Material"]
