"""Mesh files keep shape, colours and the way up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from runtime.meshes.files import read_mesh, write_glb, write_mesh
from xray_addon import Camera, Material, Surface, XRayError, cast
from xray_addon.color import srgb_to_linear


def test_a_glb_round_trips_with_smooth_colours(tmp_path: Path):
    mesh = trimesh.creation.icosphere(2)
    colors = (mesh.vertices * 0.5 + 0.5)[mesh.faces]
    surface = Surface(mesh.vertices * (1, 2, 3), mesh.faces, corner_colors=colors)
    write_glb(tmp_path / "a.glb", surface)
    again = read_mesh(tmp_path / "a.glb")
    assert len(again.vertices) == len(mesh.vertices)
    np.testing.assert_allclose(again.bounds, surface.bounds, atol=1e-6)
    order = np.lexsort(surface.vertices[surface.faces[:, 0]].round(4).T)
    other = np.lexsort(again.vertices[again.faces[:, 0]].round(4).T)
    np.testing.assert_allclose(
        srgb_to_linear(again.corner_colors[other, 0]),
        srgb_to_linear(colors[order, 0]),
        atol=0.51 / 255,
    )
    assert again.is_watertight == surface.is_watertight


def test_an_obj_round_trips_with_colours_and_textures(tmp_path: Path):
    mesh = trimesh.creation.icosphere(1)
    colors = (mesh.vertices * 0.5 + 0.5)[mesh.faces]
    write_mesh(
        tmp_path / "plain.obj",
        Surface(mesh.vertices * (1, 2, 3), mesh.faces, corner_colors=colors),
    )
    again = read_mesh(tmp_path / "plain.obj")
    np.testing.assert_allclose(again.bounds, ((-1, -2, -3), (1, 2, 3)), atol=1e-3)
    assert len(again.faces) == len(mesh.faces)
    # sRGB after each vertex, as Blender reads it.
    lines = (tmp_path / "plain.obj").read_text().splitlines()
    rows = np.array([line.split()[1:] for line in lines if line.startswith("v ")], dtype=float)
    x, y, z = rows[:, 0], -rows[:, 2], rows[:, 1]
    shown = np.stack([x, y / 2, z / 3], axis=-1) * 0.5 + 0.5
    np.testing.assert_allclose(rows[:, 3:], shown, atol=1e-4)

    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    square = np.array([[-1.0, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    uvs = (square[:, [0, 2]] * 0.5 + 0.5)[faces]
    textured = Surface(
        square,
        faces,
        corner_uvs=uvs,
        corner_normals=np.broadcast_to((0.0, -1, 0), (2, 3, 3)),
        face_material=np.array([1, 1]),
        materials=[Material((1, 0, 0)), Material(texture=pixels)],
    )
    write_mesh(tmp_path / "textured.obj", textured)
    assert sorted(path.name for path in tmp_path.glob("textured*")) == [
        "textured-1-color.png",
        "textured.mtl",
        "textured.obj",
    ]
    camera = Camera.look_at((0, -1, 0), fov_x=np.pi / 2, width=4, height=4)
    seen = cast(read_mesh(tmp_path / "textured.obj"), camera, 1).color[0]
    np.testing.assert_allclose(seen, pixels / 255, atol=1e-6)


def test_an_stl_is_read_back_in_millimetres(tmp_path: Path):
    mesh = trimesh.creation.box((0.1, 0.2, 0.3))
    write_mesh(tmp_path / "box.STL", Surface(mesh.vertices, mesh.faces))
    low, high = trimesh.load(tmp_path / "box.STL").bounds
    np.testing.assert_allclose(high - low, (100, 200, 300), rtol=1e-6)


def test_a_mesh_file_that_cannot_be_written_says_so(tmp_path: Path):
    mesh = trimesh.creation.box()
    (tmp_path / "file").touch()
    with pytest.raises(XRayError, match="cannot be written") as caught:
        write_mesh(tmp_path / "file" / "a.stl", Surface(mesh.vertices, mesh.faces))
    assert caught.value.code == "cannot_write"
    with pytest.raises(XRayError, match=r"\.glb, \.obj or \.stl") as caught:
        write_mesh(tmp_path / "a.ply", Surface(mesh.vertices, mesh.faces))
    assert caught.value.code == "unknown_format"


def test_files_are_y_up(tmp_path: Path):
    trimesh.creation.box((1, 5, 2)).export(tmp_path / "tall.glb")
    low, high = read_mesh(tmp_path / "tall.glb").bounds
    np.testing.assert_allclose(high - low, (1, 2, 5), atol=1e-6)


def test_textures_and_base_colours_keep_their_srgb_values(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(pixels))
    quad = trimesh.Trimesh(
        [[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], [[0, 1, 2], [0, 2, 3]], process=False
    )
    quad.visual = trimesh.visual.TextureVisuals([[0, 0], [1, 0], [1, 1], [0, 1]], material=material)
    quad.export(tmp_path / "textured.glb")
    surface = read_mesh(tmp_path / "textured.glb")
    camera = Camera.look_at((0, -1, 0), fov_x=np.pi / 2, width=4, height=4)
    np.testing.assert_allclose(cast(surface, camera, 1).color[0], pixels / 255, atol=1e-6)
    plain = trimesh.visual.material.PBRMaterial(baseColorFactor=[1.0, 0.2140, 0.0, 1.0])
    quad.visual = trimesh.visual.TextureVisuals(uv=None, material=plain)
    quad.export(tmp_path / "plain.glb")
    color = cast(read_mesh(tmp_path / "plain.glb"), camera, 1).hit_color[0]
    # trimesh keeps factors as bytes.
    np.testing.assert_allclose(color, (1.0, 0.5, 0.0), atol=4e-3)


def test_a_texture_round_trips_with_its_uvs(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    surface = Surface(
        np.array([[-1.0, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]]),
        np.array([[0, 1, 2], [0, 2, 3]]),
        corner_uvs=np.array([[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]]], float),
        materials=[Material(texture=pixels)],
    )
    write_glb(tmp_path / "textured.glb", surface)
    camera = Camera.look_at((0, -1, 0), fov_x=np.pi / 2, width=8, height=8)
    again = read_mesh(tmp_path / "textured.glb")
    np.testing.assert_allclose(cast(again, camera, 1).color[0], pixels / 255, atol=1e-6)


def test_every_material_is_written_with_all_that_it_has(tmp_path: Path):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2, 8, 8, 4), dtype=np.uint8)
    grey = random.integers(0, 256, (8, 8), dtype=np.uint8)
    rich = Material(
        (0.5, 0.25, 1.0),
        images[0],
        "mirror",
        "closest",
        alpha_threshold=0.25,
        metallic=0.75,
        roughness=0.5,
        metallic_texture=grey,
        roughness_texture=255 - grey,
        normal_texture=images[1, ..., :3],
    )
    surface = Surface(
        np.array([[-1.0, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]]),
        np.array([[0, 1, 2], [0, 2, 3], [0, 1, 3]]),
        corner_uvs=random.random((3, 3, 2)),
        corner_colors=random.random((3, 3, 3)),
        face_material=np.array([0, 2, 1]),
        materials=[rich, Material(texture=images[1]), Material((0.1, 0.9, 0.4))],
    )
    write_glb(tmp_path / "a.glb", surface)
    header = (tmp_path / "a.glb").read_bytes()
    size = int.from_bytes(header[12:16], "little")
    tree = json.loads(header[20 : 20 + size])
    assert len(tree["meshes"]) == 1
    parts = tree["meshes"][0]["primitives"]
    assert len(parts) == 3
    assert all({"TEXCOORD_0", "COLOR_0"} <= part["attributes"].keys() for part in parts)
    first, second, third = (tree["materials"][part["material"]] for part in parts)
    shading = first["pbrMetallicRoughness"]
    np.testing.assert_allclose(
        shading["baseColorFactor"], [*srgb_to_linear(np.array(rich.base_color)), 1], rtol=1e-12
    )
    assert (shading["metallicFactor"], shading["roughnessFactor"]) == (0.75, 0.5)
    assert (first["alphaMode"], first["alphaCutoff"]) == ("MASK", 0.25)
    texture = tree["textures"][shading["metallicRoughnessTexture"]["index"]]
    sampler = tree["samplers"][texture["sampler"]]
    assert (sampler["wrapS"], sampler["magFilter"]) == (33648, 9728)
    assert "normalTexture" in first
    assert "baseColorTexture" in second["pbrMetallicRoughness"]
    assert "alphaMode" not in second
    assert "baseColorTexture" not in third["pbrMetallicRoughness"]
    # Trimesh reads each part with its own material again.
    loaded = list(trimesh.load_scene(tmp_path / "a.glb").geometry.values())
    both = np.asarray(loaded[0].visual.material.metallicRoughnessTexture)
    np.testing.assert_array_equal(both[..., 1], 255 - grey)
    np.testing.assert_array_equal(both[..., 2], grey)
    assert [len(part.faces) for part in loaded] == [1, 1, 1]


def test_only_vertices_whose_corners_differ_are_split(tmp_path: Path):
    square = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [9, 9, 9]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    colors = np.zeros((2, 3, 3))
    colors[1, 1] = 1.0  # vertex 2 is black in one face and white in the other
    write_glb(tmp_path / "split.glb", Surface(square, faces, corner_colors=colors))
    again = read_mesh(tmp_path / "split.glb")
    assert len(again.vertices) == 5  # vertex 2 twice, the unused one not at all
    np.testing.assert_allclose(again.vertices[again.faces], square[faces], atol=1e-6)
    np.testing.assert_allclose(again.corner_colors, colors, atol=1e-6)


def test_a_surface_without_faces_is_a_file_too(tmp_path: Path):
    empty = Surface(np.zeros((0, 3)), np.zeros((0, 3), int), corner_colors=np.zeros((0, 3, 3)))
    write_glb(tmp_path / "empty.glb", empty)
    assert (tmp_path / "empty.glb").is_file()


def test_files_without_a_mesh_are_refused(tmp_path: Path):
    (tmp_path / "bad.glb").write_bytes(b"not a mesh")
    for path in (tmp_path / "bad.glb", tmp_path / "none.glb"):
        with pytest.raises(XRayError) as caught:
            read_mesh(path)
        assert caught.value.code == "unreadable_mesh"


@pytest.mark.parametrize("name", ["nested.glb", "cubevc.glb", "boolean.glb"])
def test_odd_files_give_a_mesh(assets: Path, name: str):
    assert len(read_mesh(assets / "torture/trimesh" / name).faces)


def test_a_file_of_empty_nodes_is_refused(assets: Path):
    with pytest.raises(XRayError, match="no triangles"):
        read_mesh(assets / "torture/trimesh/empty_nodes.glb")
