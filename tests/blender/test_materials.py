"""Hit colours are what the material shows: read from its nodes, checked against Cycles."""

from __future__ import annotations

import math

import bpy
import numpy as np
import pytest
from mathutils import Matrix

RANDOM = np.random.default_rng(7)
TEXELS = RANDOM.integers(0, 256, (4, 4, 3), dtype=np.uint8)


@pytest.fixture
def square(xray):
    """A unit square in the xy plane whose UVs are its x and y; `scale` and `shift` move them."""

    def add(scale=1.0, shift=0.0):
        mesh = bpy.data.meshes.new("Square")
        mesh.from_pydata([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)], [], [(0, 1, 2, 3)])
        layer = mesh.uv_layers.new(name="UVMap")
        uvs = np.array([0, 0, 1, 0, 1, 1, 0, 1], np.float32)
        layer.uv.foreach_set("vector", uvs * scale + shift)
        obj = bpy.data.objects.new("Square", mesh)
        bpy.context.collection.objects.link(obj)
        return obj

    return add


class Nodes:
    """A Principled material on an object, and its nodes."""

    def __init__(self, obj, name="Material"):
        self.material = bpy.data.materials.new(name)
        if bpy.app.version < (5, 0, 0):
            self.material.use_nodes = True
        self.tree = self.material.node_tree
        self.shader = next(n for n in self.tree.nodes if n.bl_idname == "ShaderNodeBsdfPrincipled")
        self.color = self.shader.inputs["Base Color"]
        obj.data.materials.append(self.material)

    def new(self, kind, **values):
        node = self.tree.nodes.new(f"ShaderNode{kind}")
        for name, value in values.items():
            setattr(node, name, value)
        return node

    def link(self, output, socket):
        self.tree.links.new(output, socket)

    def image(self, pixels, socket=None, *, extension="REPEAT", **options):
        """An Image Texture of (h, w, 3 or 4) values, row 0 at the top, to the base colour."""
        height, width = pixels.shape[:2]
        space = options.pop("space", None)
        image = bpy.data.images.new("Image", width, height, alpha=True, **options)
        if space:
            image.colorspace_settings.name = space
        rgba = np.ones((height, width, 4), np.float32)
        rgba[..., : pixels.shape[2]] = pixels[::-1]
        image.pixels.foreach_set(rgba.reshape(-1))
        image.update()
        image.pack()
        node = self.new("TexImage", image=image, extension=extension)
        self.link(node.outputs["Color"], socket or self.color)
        return node

    def multiply(self, factor, a, b):
        """`a` and `b` are outputs or colours."""
        mix = self.new("Mix", data_type="RGBA", blend_type="MULTIPLY")
        inputs = {socket.identifier: socket for socket in mix.inputs}
        inputs["Factor_Float"].default_value = factor
        for value, name in ((a, "A_Color"), (b, "B_Color")):
            if isinstance(value, tuple):
                inputs[name].default_value = (*value, 1.0)
            else:
                self.link(value, inputs[name])
        return next(s for s in mix.outputs if s.identifier == "Result_Color")


@pytest.fixture
def read(part):
    """(surface, reasons) of objects as they are now."""

    def surface(*objects, **options):
        bpy.context.view_layer.update()
        reader = part("operators.convert").MaterialReader(**options)
        made, _ = part("operators.convert.surfaces").surface_and_sources(
            objects, bpy.context.evaluated_depsgraph_get(), reader
        )
        return made, [appearance.reason for appearance in reader.appearances]

    return surface


@pytest.fixture
def seen(part):
    """What a camera above the square sees: colours (n, n, 3) and hits (n, n)."""

    def look(surface, size=8):
        camera = part("xray_addon.camera").Camera(
            size, size, 2 * math.atan(0.5), np.array(Matrix.Translation((0.5, 0.5, 1.0)))
        )
        xray = part("xray_addon.casting").cast(surface, camera, 1)
        return xray.color[0], xray.hit[0]

    return look


@pytest.fixture
def baked(part):
    """The surface with the colours that Cycles bakes, whatever can be followed."""

    def surface(obj):
        baking = part("operators.convert.baking")
        settings = part("xray_addon.settings").DatasetSettings(bake_size=128)
        bpy.context.view_layer.update()
        depsgraph = bpy.context.evaluated_depsgraph_get()
        made, sources = part("operators.convert").surface_and_sources([obj], depsgraph)
        names = {material.name_full for material in obj.data.materials}
        return baking._with_baked(made, sources, [obj], depsgraph, names, settings)

    return surface


def plain(nodes):
    nodes.image(TEXELS / 255)


def with_alpha_unused(nodes):
    nodes.image(RANDOM.random((4, 4, 4)))


def packed(nodes):
    nodes.image(RANDOM.random((4, 4, 4))).image.alpha_mode = "CHANNEL_PACKED"


def alpha_used(nodes):
    node = nodes.image(0.6 + 0.4 * RANDOM.random((4, 4, 4)))
    nodes.link(node.outputs["Alpha"], nodes.shader.inputs["Alpha"])


def linear_floats(nodes):
    nodes.image(0.3 + 0.7 * RANDOM.random((4, 4, 3)), float_buffer=True)


def data_bytes(nodes):
    nodes.image(0.3 + 0.7 * RANDOM.random((4, 4, 3)), space="Non-Color")


def mapped(nodes):
    mapping, coordinates = nodes.new("Mapping"), nodes.new("TexCoord")
    mapping.inputs["Scale"].default_value = (2, 0.5, 1)
    mapping.inputs["Rotation"].default_value = (0, 0, 0.4)
    mapping.inputs["Location"].default_value = (0.3, 0.1, 0)
    nodes.link(coordinates.outputs["UV"], mapping.inputs["Vector"])
    nodes.link(mapping.outputs["Vector"], nodes.image(TEXELS / 255).inputs["Vector"])


def partly_multiplied(nodes):
    image = nodes.image(TEXELS / 255)
    nodes.link(nodes.multiply(0.6, image.outputs["Color"], (0.5, 1.0, 0.1)), nodes.color)


def muted(nodes):
    image = nodes.image(TEXELS / 255)
    invert = nodes.new("Invert", mute=True)
    nodes.link(image.outputs["Color"], invert.inputs["Color"])
    nodes.link(invert.outputs["Color"], nodes.color)


def glowing(nodes):
    nodes.color.default_value = (0, 0, 0, 1)
    nodes.image(TEXELS / 255, nodes.shader.inputs["Emission Color"])
    nodes.shader.inputs["Emission Strength"].default_value = 0.5


def closest(nodes):
    nodes.image(TEXELS / 255).interpolation = "Closest"


@pytest.mark.parametrize(
    "build",
    [
        plain,
        with_alpha_unused,
        packed,
        alpha_used,
        linear_floats,
        data_bytes,
        mapped,
        partly_multiplied,
        muted,
        glowing,
        closest,
    ],
)
def test_what_is_followed_is_what_cycles_shows(square, read, seen, baked, build):
    obj = square()
    build(Nodes(obj))
    surface, reasons = read(obj)
    assert reasons == [""]
    # Between texels we interpolate encoded colours; Cycles linear ones as light, and those with
    # alpha weighted by it. At the texels' centres all agree.
    size = 4 if build in (alpha_used, linear_floats, data_bytes) else 8
    ours, theirs = seen(surface, size)[0], seen(baked(obj), size)[0]
    assert np.abs(ours - theirs).max() < 0.04
    assert np.ptp(ours) > 0.2


@pytest.mark.parametrize("extension", ["REPEAT", "EXTEND", "MIRROR", "CLIP"])
def test_beyond_the_image(square, read, seen, baked, extension):
    obj = square(scale=3.0, shift=-1.0)
    Nodes(obj).image(TEXELS / 255, extension=extension)
    surface, reasons = read(obj)
    assert reasons == [""]
    ours, theirs = seen(surface, 24)[0], seen(baked(obj), 24)[0]
    # Where texels meet sharply the bake is a little softer than the samples.
    assert np.quantile(np.abs(ours - theirs), 0.9) < 0.05
    assert np.abs(ours - theirs).mean() < 0.03


def test_colours_are_the_textures_bytes(square, read, seen):
    obj = square()
    Nodes(obj).image(TEXELS / 255)
    colors, _ = seen(read(obj)[0], 4)
    np.testing.assert_allclose(colors * 255, TEXELS, atol=0.51)


def test_an_exr_gives_its_encoded_light(square, read, seen, tmp_path):
    obj = square()
    nodes = Nodes(obj)
    node = nodes.image(np.full((2, 2, 3), 0.25), float_buffer=True)
    node.image.filepath_raw, node.image.file_format = str(tmp_path / "a.exr"), "OPEN_EXR"
    node.image.save()
    node.image = bpy.data.images.load(str(tmp_path / "a.exr"))
    assert node.image.is_float
    assert np.allclose(seen(read(obj)[0])[0], 0.5371, atol=0.003)


@pytest.mark.parametrize("domain", ["POINT", "CORNER"])
@pytest.mark.parametrize("kind", ["FLOAT_COLOR", "BYTE_COLOR"])
@pytest.mark.parametrize("node", ["VertexColor", "Attribute"])
def test_colour_attributes(square, read, seen, domain, kind, node):
    obj = square()
    attribute = obj.data.color_attributes.new("Paint", kind, domain)
    attribute.data.foreach_set("color_srgb", [0.2, 0.4, 0.6, 1.0] * 4)
    nodes = Nodes(obj)
    name = {"VertexColor": "layer_name", "Attribute": "attribute_name"}[node]
    nodes.link(nodes.new(node, **{name: "Paint"}).outputs["Color"], nodes.color)
    surface, reasons = read(obj)
    assert reasons == [""]
    assert np.allclose(seen(surface)[0], (0.2, 0.4, 0.6), atol=0.003)


@pytest.mark.parametrize("domain", ["POINT", "CORNER"])
@pytest.mark.parametrize("kind", ["FLOAT_COLOR", "BYTE_COLOR"])
def test_colour_attributes_through_gltf(square, read, seen, tmp_path, domain, kind):
    obj = square()
    attribute = obj.data.color_attributes.new("Paint", kind, domain)
    attribute.data.foreach_set("color_srgb", [0.2, 0.4, 0.6, 1.0] * 4)
    nodes = Nodes(obj)
    nodes.link(nodes.new("VertexColor", layer_name="Paint").outputs["Color"], nodes.color)
    path = str(tmp_path / "painted.glb")
    bpy.ops.export_scene.gltf(filepath=path)
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=path)
    back = next(o for o in bpy.context.view_layer.objects if o.type == "MESH")
    surface, reasons = read(back)
    assert reasons == [""]
    assert np.allclose(seen(surface)[0], (0.2, 0.4, 0.6), atol=0.003)


@pytest.mark.parametrize(
    ("kind", "value", "light"),
    [
        ("FLOAT", 0.25, (0.25, 0.25, 0.25)),
        ("FLOAT_VECTOR", (0.1, 0.2, 0.3), (0.1, 0.2, 0.3)),
        ("FLOAT2", (0.4, 0.6), (0.4, 0.6, 0.0)),
        ("INT", 1, (1.0, 1.0, 1.0)),
        ("BOOLEAN", True, (1.0, 1.0, 1.0)),
        ("", None, (0.0, 0.0, 0.0)),  # there is none of that name
    ],
)
def test_attributes_that_are_no_colours_show_as_in_cycles(square, read, seen, kind, value, light):
    obj = square()
    if kind:
        attribute = obj.data.attributes.new("Paint", kind, "POINT")
        for item in attribute.data:
            setattr(item, "vector" if isinstance(value, tuple) else "value", value)
    nodes = Nodes(obj)
    node = nodes.new("Attribute", attribute_name="Paint")
    nodes.link(node.outputs["Color"], nodes.color)
    surface, reasons = read(obj)
    assert reasons == [""]
    linear = np.array(light)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.allclose(seen(surface)[0], encoded, atol=0.003)


def invert(nodes):
    nodes.link(nodes.new("Invert").outputs["Color"], nodes.color)


def noise(nodes):
    nodes.link(nodes.new("TexNoise").outputs["Color"], nodes.color)


def two_images(nodes):
    a, b = (nodes.image(TEXELS / 255).outputs["Color"] for _ in range(2))
    nodes.link(nodes.multiply(1.0, a, b), nodes.color)


def alpha_as_colour(nodes):
    nodes.link(nodes.image(TEXELS / 255).outputs["Alpha"], nodes.color)


def generated_coordinates(nodes):
    image = nodes.image(TEXELS / 255)
    nodes.link(nodes.new("TexCoord").outputs["Generated"], image.inputs["Vector"])


def tilted_mapping(nodes):
    image, mapping = nodes.image(TEXELS / 255), nodes.new("Mapping")
    mapping.inputs["Rotation"].default_value = (0.5, 0, 0)
    nodes.link(mapping.outputs["Vector"], image.inputs["Vector"])


def two_shaders(nodes):
    mix, other = nodes.new("MixShader"), nodes.new("BsdfDiffuse")
    nodes.link(nodes.shader.outputs[0], mix.inputs[1])
    nodes.link(other.outputs[0], mix.inputs[2])
    nodes.link(mix.outputs[0], nodes.tree.get_output_node("CYCLES").inputs["Surface"])


def glow_on_top(nodes):
    nodes.shader.inputs["Emission Color"].default_value = (1, 0, 0, 1)
    nodes.shader.inputs["Emission Strength"].default_value = 1.0


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (invert, "Invert"),
        (noise, "Noise Texture"),
        (two_images, "two images"),
        (alpha_as_colour, "the alpha of an image"),
        (generated_coordinates, "Texture Coordinate"),
        (tilted_mapping, "leaves the UV plane"),
        (two_shaders, "mixes shaders"),
        (glow_on_top, "glows on top"),
    ],
)
def test_what_cannot_be_followed_says_why(square, read, build, reason):
    obj = square()
    build(Nodes(obj))
    (found,) = read(obj)[1]
    assert reason in found


# Alpha


HALF = np.concatenate([TEXELS / 255, np.ones((4, 4, 1))], axis=2)
HALF[:, :2, 3] = 0.3


def linked(nodes, image):
    nodes.link(image.outputs["Alpha"], nodes.shader.inputs["Alpha"])


def greater(nodes, image):
    node = nodes.new("Math", operation="GREATER_THAN")
    node.inputs[1].default_value = 0.4
    nodes.link(image.outputs["Alpha"], node.inputs[0])
    nodes.link(node.outputs[0], nodes.shader.inputs["Alpha"])


def as_gltf_masks(nodes, image):
    below, turned = (nodes.new("Math", operation=name) for name in ("LESS_THAN", "SUBTRACT"))
    below.inputs[1].default_value = 0.35
    turned.inputs[0].default_value = 1.0
    nodes.link(image.outputs["Alpha"], below.inputs[0])
    nodes.link(below.outputs[0], turned.inputs[1])
    nodes.link(turned.outputs[0], nodes.shader.inputs["Alpha"])


def mixed_with_transparent(nodes, image):
    mix, clear = nodes.new("MixShader"), nodes.new("BsdfTransparent")
    nodes.link(image.outputs["Alpha"], mix.inputs[0])
    nodes.link(clear.outputs[0], mix.inputs[1])
    nodes.link(nodes.shader.outputs[0], mix.inputs[2])
    nodes.link(mix.outputs[0], nodes.tree.get_output_node("CYCLES").inputs["Surface"])


@pytest.mark.parametrize(
    ("build", "threshold"),
    [(linked, 0.5), (greater, 0.4), (as_gltf_masks, 0.35), (mixed_with_transparent, 0.5)],
)
def test_rays_pass_where_alpha_clips(square, read, seen, build, threshold):
    obj = square()
    nodes = Nodes(obj)
    build(nodes, nodes.image(HALF))
    surface, reasons = read(obj, alpha_clip=True)
    assert reasons == [""]
    assert surface.materials[0].alpha_threshold == pytest.approx(threshold)
    colors, hit = seen(surface, 4)
    assert not hit[:, :2].any()
    assert hit[:, 2:].all()
    np.testing.assert_allclose(colors[:, 2:] * 255, TEXELS[:, 2:], atol=0.51)
    assert seen(read(obj)[0], 4)[1].all()  # unless it is asked for


def test_alpha_of_one_image_clips_a_plain_colour(square, read, seen):
    obj = square()
    nodes = Nodes(obj)
    linked(nodes, nodes.image(HALF, nodes.shader.inputs["Normal"]))
    nodes.color.default_value = (0.5, 0.25, 0.125, 1.0)
    colors, hit = seen(read(obj, alpha_clip=True)[0], 4)
    assert hit[:, 2:].all()
    assert not hit[:, :2].any()
    assert np.allclose(colors[:, 2:], (0.735357, 0.537099, 0.388573), atol=1e-3)


def test_a_masked_gltf_comes_back_with_its_cutoff(square, read, seen, tmp_path):
    obj = square()
    nodes = Nodes(obj)
    image = nodes.image(HALF)
    as_gltf_masks(nodes, image)
    path = str(tmp_path / "masked.glb")
    bpy.ops.export_scene.gltf(filepath=path)
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=path)
    back = next(o for o in bpy.context.view_layer.objects if o.type == "MESH")
    surface, reasons = read(back, alpha_clip=True)
    assert reasons == [""]
    assert surface.materials[0].alpha_threshold == pytest.approx(0.35)
    # glTF's y up makes a square that lies in the plane of the ground stay there.
    _, hit = seen(surface, 4)
    assert hit.sum() == 8
