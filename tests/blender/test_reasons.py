"""What is wrong with a source is said in words that a person can act on."""

from __future__ import annotations

import json
import shutil
import struct

import bpy
import numpy as np
import pytest
from mathutils import Matrix


@pytest.fixture
def make(part, tmp_path):
    """Make one item of a file: (result, report, row or None, messages)."""

    def run(path, **values):
        settings = part("xray_addon.settings").DatasetSettings(
            **{
                "views": 1,
                "size": 32,
                "layers": 4,
                "image": "cast",
                "image_size": 32,
                "samples": 2,
                "denoise": False,
                "device": "cpu",
                **values,
            }
        )
        out = tmp_path / "out"
        item = part("xray_addon.dataset.manifest").Item("a", str(path))
        run = part("operators.dataset.capture").make_dataset([item], out, settings, replace=True)
        row = out / "metadata/a.json"
        messages = json.loads((out / "logs/a.json").read_text())["messages"]
        return (
            run.results[0],
            (out / "report.md").read_text(),
            json.loads(row.read_text()) if row.exists() else None,
            messages,
        )

    return run


def saved(path):
    bpy.ops.wm.save_as_mainfile(filepath=str(path))
    return path


def material(obj, **inputs):
    made = bpy.data.materials.new("Glass")
    if bpy.app.version < (5, 0, 0):
        made.use_nodes = True
    shader = next(n for n in made.node_tree.nodes if n.type == "BSDF_PRINCIPLED")
    for name, value in inputs.items():
        shader.inputs[name].default_value = value
    obj.data.materials.append(made)
    return made.node_tree, shader


# Materials


def transparent_shader(obj):
    tree, _ = material(obj)
    clear = tree.nodes.new("ShaderNodeBsdfTransparent")
    tree.links.new(clear.outputs[0], tree.get_output_node("CYCLES").inputs["Surface"])


def mixed_with_transparent(obj):
    tree, shader = material(obj)
    clear, mix = tree.nodes.new("ShaderNodeBsdfTransparent"), tree.nodes.new("ShaderNodeMixShader")
    mix.inputs[0].default_value = 0.9
    tree.links.new(shader.outputs[0], mix.inputs[1])
    tree.links.new(clear.outputs[0], mix.inputs[2])
    tree.links.new(mix.outputs[0], tree.get_output_node("CYCLES").inputs["Surface"])


@pytest.mark.parametrize(
    "change",
    [lambda obj: material(obj, Alpha=0.0), transparent_shader, mixed_with_transparent],
)
def test_a_transparent_material_is_named(make, cube, tmp_path, change):
    change(cube)
    result, report, _, _ = make(saved(tmp_path / "a.blend"), image="cycles")
    assert (result.status, result.code) == ("rejected", "low_iou")
    assert "the material Glass is transparent" in result.reason
    assert "the material Glass is transparent" in report


def test_an_mtl_with_d_0_is_named(make, xray, tmp_path):
    bpy.ops.mesh.primitive_cube_add()
    material(bpy.context.object)
    bpy.ops.wm.obj_export(filepath=str(tmp_path / "a.obj"))
    (tmp_path / "a.mtl").write_text("newmtl Glass\nKd .2 .6 .2\nd 0\n")
    result, *_ = make(tmp_path / "a.obj", image="cycles")
    assert "the material Glass is transparent" in result.reason


def alpha_image(obj, name="alpha"):
    """A texture whose alpha hides three quarters of each side."""
    tree, shader = material(obj)
    image = bpy.data.images.new(name, 8, 8, alpha=True)
    pixels = np.ones((8, 8, 4), np.float32)
    pixels[2:, :, 3] = 0.0
    image.pixels.foreach_set(pixels.reshape(-1))
    image.pack()
    node = tree.nodes.new("ShaderNodeTexImage")
    node.image, node.interpolation = image, "Closest"
    tree.links.new(node.outputs["Color"], shader.inputs["Base Color"])
    tree.links.new(node.outputs["Alpha"], shader.inputs["Alpha"])


def test_an_alpha_mask_names_the_option_that_lets_rays_through(make, cube, tmp_path):
    alpha_image(cube)
    path = saved(tmp_path / "a.blend")
    result, *_ = make(path, image="cycles")
    assert (result.status, result.code) == ("rejected", "low_iou")
    assert "alpha of the material Glass hides parts" in result.reason
    assert "--alpha-clip" in result.reason
    result, *_ = make(path, image="cycles", alpha_clip=True)
    assert (result.status, result.reason) == ("done", "")


def test_judged_again_the_reason_is_the_same(make, cube, tmp_path):
    material(cube, Alpha=0.0)
    path = saved(tmp_path / "a.blend")
    first, *_ = make(path, image="cycles")
    again, *_ = make(path, image="cycles", min_iou=0.8)
    assert again.reason == first.reason.replace("0.9", "0.8")


# Images of materials


def in_group(obj):
    tree, shader = material(obj)
    group = bpy.data.node_groups.new("Inner", "ShaderNodeTree")
    group.interface.new_socket("Color", in_out="OUTPUT", socket_type="NodeSocketColor")
    inside = group.nodes.new("ShaderNodeTexImage")
    end = group.nodes.new("NodeGroupOutput")
    group.links.new(inside.outputs["Color"], end.inputs[0])
    node = tree.nodes.new("ShaderNodeGroup")
    node.node_tree = group
    tree.links.new(node.outputs[0], shader.inputs["Base Color"])


def alone(obj):
    tree, shader = material(obj)
    node = tree.nodes.new("ShaderNodeTexImage")
    tree.links.new(node.outputs["Color"], shader.inputs["Base Color"])


@pytest.mark.parametrize("build", [alone, in_group])
def test_a_texture_node_without_image_is_magenta_everywhere(make, part, cube, tmp_path, build):
    build(cube)
    result, report, row, messages = make(saved(tmp_path / "a.blend"), image="cycles")
    assert result.status == "done"
    assert row["missing_textures"] == ["of the node Image Texture"]
    assert "There is no image file of the node Image Texture." in messages
    assert "| a | of the node Image Texture |" in report
    xray = part("xray_addon.xray").XRay.load(tmp_path / "out/xrays/a/000.npz")
    assert np.allclose(xray.hit_color, (1, 0, 1), atol=0.003)
    picture = part("operators.convert.images").read_image(tmp_path / "out/images/a/000.png")
    red, green, blue = np.median(picture[picture[..., 3] > 250][:, :3], axis=0)
    assert min(red, blue) > 150 > 100 > green


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\x89PNG\r\n\x1a\n garbage", "cannot be read"),
    ],
)
def test_what_lies_in_an_images_place_is_named(make, cube, tmp_path, content, said):
    alone(cube)
    image = bpy.data.images.new("Wood", 4, 4)
    image.filepath_raw, image.file_format = str(tmp_path / "wood.png"), "PNG"
    image.save()
    node = cube.data.materials[0].node_tree.nodes["Image Texture"]
    node.image = bpy.data.images.load(str(tmp_path / "wood.png"))
    path = saved(tmp_path / "a.blend")
    (tmp_path / "wood.png").write_bytes(content)
    _, _, row, _ = make(path)
    assert len(row["missing_textures"]) == 1
    assert row["missing_textures"][0].startswith("wood.png (it ")
    assert said in row["missing_textures"][0]


def test_a_missing_tile_is_named(make, cube, tmp_path):
    alone(cube)
    for number in (1001, 1002):
        image = bpy.data.images.new("Tile", 4, 4)
        image.filepath_raw, image.file_format = str(tmp_path / f"wood.{number}.png"), "PNG"
        image.save()
    tiled = bpy.data.images.load(str(tmp_path / "wood.1001.png"))
    tiled.source, tiled.filepath = "TILED", str(tmp_path / "wood.<UDIM>.png")
    if not any(tile.number == 1002 for tile in tiled.tiles):
        tiled.tiles.new(1002)
    cube.data.materials[0].node_tree.nodes["Image Texture"].image = tiled
    path = saved(tmp_path / "a.blend")
    (tmp_path / "wood.1002.png").unlink()
    _, _, row, _ = make(path, bake_size=64)
    assert row["missing_textures"] == ["wood.1002.png"]


# Files


def test_another_scene_that_holds_the_meshes_is_named(make, cube, tmp_path):
    model = bpy.data.scenes.new("Model")
    model.collection.objects.link(cube)
    bpy.context.collection.objects.unlink(cube)
    result, *_ = make(saved(tmp_path / "a.blend"))
    assert result.code == "no_faces"
    assert "another scene of this file has meshes (Model)" in result.reason
    assert "active" in result.reason


@pytest.fixture
def linked(cube, tmp_path):
    """A .blend file with a cube of its own and one that is linked from lib.blend."""
    cube.name = "Part"
    library = saved(tmp_path / "lib.blend")
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.mesh.primitive_cube_add()
    with bpy.data.libraries.load(str(library), link=True) as (_, to):
        to.objects = ["Part"]
    part = bpy.data.objects["Part"]
    bpy.context.collection.objects.link(part)
    return saved(tmp_path / "a.blend")


@pytest.mark.parametrize("lost", [True, False], ids=["library", "object"])
def test_a_lost_library_is_listed_as_incomplete(make, linked, tmp_path, lost):
    library = tmp_path / "lib.blend"
    if lost:
        library.unlink()
    else:
        bpy.ops.wm.read_factory_settings(use_empty=True)
        saved(library)
    result, report, row, messages = make(linked)
    assert result.status == "done"
    assert row["triangles"] == 12
    (name,) = row["incomplete"]
    assert name.endswith("lib.blend")
    assert ("Part in " in name) is not lost
    assert f"| a | {name} |" in report
    assert "incomplete" in row["gates"]
    assert any(line == f"It is captured without {name}, which is missing." for line in messages)


def test_a_library_that_is_there_is_complete(make, linked):
    result, _, row, _ = make(linked)
    assert result.status == "done"
    assert row["triangles"] == 24
    assert "incomplete" not in row


def test_a_missing_material_file_is_listed(make, cube, tmp_path):
    material(cube)
    bpy.ops.wm.obj_export(filepath=str(tmp_path / "a.obj"))
    (tmp_path / "a.mtl").unlink()
    _, report, row, _ = make(tmp_path / "a.obj")
    assert row["incomplete"] == ["a.mtl"]
    assert "| a | a.mtl |" in report


@pytest.mark.parametrize("suffix", ["glb", "gltf", "obj", "ply", "stl", "fbx", "usdc", "blend"])
@pytest.mark.parametrize(
    ("content", "said", "remedy"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer", "git lfs pull"),
        (b"\n<!doctype HTML>\n<html>", "is a web page", "the file itself"),
        (b'{"message": "Not Found"}', "is a web server's error message", "again"),
        (b"404: Not Found", "is a web server's error message", "again"),
        (b"", "is an empty file", "again"),
    ],
)
def test_what_lies_in_a_meshs_place_is_named(part, xray, tmp_path, suffix, content, said, remedy):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    with pytest.raises(part("xray_addon.errors").XRayError, match=said) as caught:
        part("operators.convert.mesh_files").open_alone(path)
    assert caught.value.code == "unreadable_file"
    assert remedy in caught.value.remedy


def test_a_pointer_in_a_buffers_place_is_named(part, cube, tmp_path):
    bpy.ops.export_scene.gltf(filepath=str(tmp_path / "a.gltf"), export_format="GLTF_SEPARATE")
    (tmp_path / "a.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(part("xray_addon.errors").XRayError, match=r"a\.bin is a Git LFS pointer"):
        part("operators.convert.mesh_files").open_alone(tmp_path / "a.gltf")


def require(path, extension):
    """Make a glTF file require an extension."""

    def changed(text):
        document = json.loads(text)
        for name in ("extensionsUsed", "extensionsRequired"):
            document[name] = [*document.get(name, []), extension]
        return json.dumps(document).encode()

    data = path.read_bytes()
    if path.suffix == ".gltf":
        path.write_bytes(changed(data))
        return path
    length = struct.unpack("<I", data[12:16])[0]
    text, rest = changed(data[20 : 20 + length]), data[20 + length :]
    text += b" " * (-len(text) % 4)
    header = b"glTF" + struct.pack("<III4s", 2, 20 + len(text) + len(rest), len(text), b"JSON")
    path.write_bytes(header + text + rest)
    return path


@pytest.mark.parametrize("suffix", ["glb", "gltf"])
def test_a_required_extension_is_named_and_the_bare_geometry_offered(make, cube, tmp_path, suffix):
    alpha_image(cube)
    path = tmp_path / "with space" / f"a.{suffix}"
    path.parent.mkdir()
    kind = {"glb": "GLB", "gltf": "GLTF_SEPARATE"}[suffix]
    bpy.ops.export_scene.gltf(filepath=str(path), export_format=kind)
    require(path, "MSFT_texture_dds")
    result, *_ = make(path)
    assert result.code == "unreadable_file"
    assert "requires the glTF extension MSFT_texture_dds" in result.reason
    assert "--bare-geometry" in result.reason
    result, _, row, _ = make(path, bare_geometry=True)
    assert (result.status, row["triangles"]) == ("done", 12)
    assert "missing_textures" not in row
    assert bpy.data.materials[:] == []


def test_compressed_vertices_have_no_bare_geometry(make, cube, tmp_path):
    path = tmp_path / "a.glb"
    bpy.ops.export_scene.gltf(filepath=str(path))
    require(path, "EXT_meshopt_compression")
    result, *_ = make(path)
    if result.status == "done":
        pytest.skip("this Blender reads it")
    assert "EXT_meshopt_compression" in result.reason
    assert "compressed" in result.reason
    assert "--bare-geometry" not in result.reason


# Far from the origin


def ball(location=(0, 0, 0), *, in_mesh=True):
    bpy.ops.mesh.primitive_uv_sphere_add(radius=5)
    obj = bpy.context.object
    if in_mesh:
        obj.data.transform(Matrix.Translation(location))
    else:
        obj.location = location
    return obj


UTM = (448_262.0, 5_411_930.0, 310.0)
EARTH = (6_371_000.0, 0.0, 0.0)


@pytest.mark.parametrize("place", [UTM, EARTH])
def test_where_rounding_exceeds_a_pixel_it_is_rejected(make, xray, tmp_path, place):
    ball(place)
    result, report, _, _ = make(saved(tmp_path / "a.blend"), size=256)
    assert (result.status, result.code) == ("rejected", "far_from_origin")
    assert "rounded to 0.5" in result.reason
    assert "far_from_origin | 1 | 1" in report


def test_where_rounding_shows_it_is_warned_of(make, xray, tmp_path):
    ball((60_000.0, 0.0, 0.0))  # steps of 4 mm, pixels of 40 mm
    result, report, row, messages = make(saved(tmp_path / "a.blend"), size=512)
    assert result.status == "done"
    assert "far_from_origin" in row["gates"]
    assert any("rounded to 0.0039" in line for line in messages)
    assert "far_from_origin | 1 | 0" in report


def test_near_the_origin_nothing_is_said(make, xray, tmp_path):
    ball((100.0, 0.0, 0.0))
    _, _, row, messages = make(saved(tmp_path / "a.blend"), size=256)
    assert "far_from_origin" not in row["gates"]
    assert messages == []


def test_an_object_that_only_stands_far_away_is_captured_as_at_home(make, part, xray, tmp_path):
    load = part("xray_addon.xray").XRay.load
    ball(UTM, in_mesh=False)
    path = saved(tmp_path / "a.blend")
    result, _, row, _ = make(path, size=64)
    assert result.status == "done"
    assert "far_from_origin" in row["gates"]
    there = load(tmp_path / "out/xrays/a/000.npz")
    bpy.context.scene.objects[0].location = (0, 0, 0)
    make(saved(path), size=64)
    here = load(tmp_path / "out/xrays/a/000.npz")
    assert np.array_equal(here.index, there.index)
    assert np.allclose(here.hit_depth, there.hit_depth, atol=1e-5)
    assert np.allclose(here.hit_normal, there.hit_normal, atol=1e-4)


def test_two_objects_far_away_are_apart_by_whole_steps(make, xray, tmp_path):
    ball(UTM, in_mesh=False)
    ball((UTM[0], UTM[1] + 3.3, UTM[2]), in_mesh=False)
    result, *_ = make(saved(tmp_path / "a.blend"), size=256)
    assert result.code == "far_from_origin"


def test_slices_and_omages_reject_it_too(part, xray):
    obj = ball(UTM)
    bpy.context.view_layer.update()
    error = part("xray_addon.errors").XRayError
    slices = part("xray_addon.settings.slices").SliceSettings(size=256)
    with pytest.raises(error, match="far from the origin"):
        part("operators.slices.slicing").slice_objects([obj], slices)
    omages = part("xray_addon.settings.omage").OmageSettings(resolution=64)
    with pytest.raises(error, match="far from the origin"):
        part("operators.omage.encoding").encode_objects([obj], omages)


def test_a_plain_capture_warns_and_rejects(part, xray, tmp_path):
    settings = part("xray_addon.settings").CaptureSettings(views=1, size=256, layers=4)
    plain, item = part("operators.dataset.plain"), part("xray_addon.dataset.manifest").Item
    said = []
    for name, place in (("far", UTM), ("near", (130_000.0, 0.0, 0.0))):
        bpy.ops.wm.read_factory_settings(use_empty=True)
        ball(place)
        path = saved(tmp_path / f"{name}.blend")
        steps = plain.file_steps([item(name, str(path))], tmp_path / "out", settings, said.append)
        (result,) = part("operators.tasks.jobs").run(steps).results
        assert result.status == ("rejected" if name == "far" else "done")
    assert len(said) == 1
    assert said[0].startswith("near: It lies so far from the origin")
    shutil.rmtree(tmp_path / "out")
