"""A generated mesh survives the trip between processes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import trimesh

from xray_addon import Camera, Generated, Material, Surface, XRayError, cast


def generated(with_xray: bool) -> Generated:
    mesh = trimesh.creation.icosphere(1)
    surface = Surface(
        mesh.vertices,
        mesh.faces,
        corner_normals=mesh.vertex_normals[mesh.faces],
        corner_colors=np.random.default_rng(0).random((len(mesh.faces), 3, 3)),
        face_material=np.zeros(len(mesh.faces), dtype=int),
        materials=[Material((0.5, 1.0, 0.25))],
    )
    camera = Camera.look_at((0, -3, 1), width=24, height=16)
    return Generated(surface, cast(surface, camera, 4) if with_xray else None, camera)


@pytest.mark.parametrize("with_xray", [True, False])
def test_everything_comes_back(tmp_path, with_xray):
    chosen = {"distance": 4.25, "upright": "never"}
    sent = dataclasses.replace(generated(with_xray), notes=("It leans.",), chosen=chosen)
    sent.save(tmp_path / "result.npz")
    got = Generated.load(tmp_path / "result.npz")
    for name in ("vertices", "faces", "corner_normals", "corner_colors", "face_material"):
        np.testing.assert_array_equal(getattr(got.surface, name), getattr(sent.surface, name))
    assert got.surface.materials[0].base_color == (0.5, 1.0, 0.25)
    np.testing.assert_array_equal(got.camera.camera_to_world, sent.camera.camera_to_world)
    assert (got.camera.width, got.camera.height, got.camera.fov_x) == (24, 16, sent.camera.fov_x)
    assert (list(got.notes), got.chosen) == (["It leans."], chosen)
    assert (got.xray is None) == (not with_xray)
    if got.xray is not None:
        np.testing.assert_array_equal(got.xray.depth, sent.xray.depth)


def test_broken_results_are_refused(tmp_path):
    generated(True).save(tmp_path / "result.npz")
    content = (tmp_path / "result.npz").read_bytes()
    (tmp_path / "result.npz").write_bytes(content[:-200])
    with pytest.raises(XRayError) as caught:
        Generated.load(tmp_path / "result.npz")
    assert caught.value.code == "bad_result"


def test_materials_and_pictures_come_back(tmp_path):
    random = np.random.default_rng(0)
    texture = random.integers(0, 256, (2, 4, 4), dtype=np.uint8)
    grey = random.integers(0, 256, (2, 4), dtype=np.uint8)
    uvs = random.random((1, 3, 2))
    rich = Material(
        texture=texture,
        wrap="mirror",
        interpolation="closest",
        alpha_threshold=0.25,
        metallic=0.75,
        roughness=0.5,
        metallic_texture=grey,
        roughness_texture=255 - grey,
        normal_texture=texture[..., :3],
    )
    materials = [Material((0.5, 1.0, 1.0)), rich]
    surface = Surface(np.eye(3), np.array([[0, 1, 2]]), corner_uvs=uvs, materials=materials)
    pictures = {"slices, side by side": texture[..., :3], "mask": texture}
    Generated(surface, None, generated(False).camera, pictures).save(tmp_path / "r.npz")
    got = Generated.load(tmp_path / "r.npz")
    np.testing.assert_array_equal(got.surface.corner_uvs, uvs)
    for ours, theirs in zip(got.surface.materials, materials, strict=True):
        for item in dataclasses.fields(Material):
            np.testing.assert_equal(getattr(ours, item.name), getattr(theirs, item.name))
    assert list(got.pictures) == list(pictures)
    for name, picture in pictures.items():
        np.testing.assert_array_equal(got.pictures[name], picture)
