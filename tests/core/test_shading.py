"""The built-in shader gives pictures that agree with the X-Ray."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from xray_addon import Camera, Material, Surface, cast
from xray_addon.casting import cast_samples
from xray_addon.pictures.shading import Lights, reduce_image, shade, shade_surface, to_bytes


def scene(size: int = 64) -> tuple[Surface, Camera]:
    mesh = trimesh.creation.icosphere(3)
    surface = Surface(mesh.vertices, mesh.faces, materials=[Material((0.8, 0.2, 0.1))])
    return surface, Camera.look_at((0, -3, 0), width=size, height=size)


def test_alpha_is_the_first_layer():
    surface, camera = scene()
    xray = cast(surface, camera, 4)
    image = shade(xray, camera, Lights.studio(camera))
    np.testing.assert_array_equal(image[..., 3] > 0, xray.hit[0])
    assert (image[~xray.hit[0]] == 0).all()


def test_light_comes_from_where_it_is_said_to_and_keeps_the_hue():
    surface, camera = scene()
    up = camera.camera_to_world[2, :3]
    left = Lights(0.1, 0.1, up, np.array([[-1.0, 0, 0]]), np.array([0.8]))
    image = shade(cast(surface, camera, 1), camera, left)
    assert image[32, 18, 0] > 1.5 * image[32, 46, 0]
    assert (image[..., 0] >= image[..., 2]).all()


def test_a_sheet_seen_from_behind_is_lit_like_from_the_front():
    sheet = Surface(np.array([[-1.0, 0, -1], [1, 0, -1], [0, 0, 1]]), np.array([[0, 1, 2]]))
    camera = Camera.look_at((0, -3, 0), width=16, height=16)
    lights = Lights.studio(camera)
    front = shade(cast(sheet, camera, 1), camera, lights)
    back = shade(cast(sheet.flipped(), camera, 1), camera, lights)
    np.testing.assert_allclose(front, back, atol=1e-6)


def test_antialiased_edges_do_not_darken():
    surface, camera = scene(32)
    image = shade_surface(surface, camera, samples=4).astype(float)
    edge = (image[..., 3] > 20) & (image[..., 3] < 235)
    assert edge.sum() > 20
    inside = image[..., 3] == 255
    assert image[edge][:, 0].mean() > 0.6 * image[inside][:, 0].mean()


def fully_sampled(surface: Surface, camera: Camera, lights: Lights) -> np.ndarray:
    """The picture with every ray shaded by itself, as NumPy's powers do it."""
    fine = replace(camera.resized(2 * camera.width, 2 * camera.height), pixel_offset=0.5)
    return to_bytes(reduce_image(shade(cast(surface, fine, 1), fine, lights), 2))


def wires() -> Surface:
    """Upright triangles, half a pixel thin, in front of a wall of another colour."""
    at = np.linspace(-0.9, 0.9, 23)
    corners = np.array([[[x, -0.3, -0.9], [x + 0.02, -0.3, -0.9], [x, -0.3, 0.9]] for x in at])
    wall = np.array([[[-1.0, 0, -1], [1, 0, -1], [0, 0, 1]]])
    corners = np.concatenate([corners, wall])
    return Surface(
        corners.reshape(-1, 3),
        np.arange(3 * len(corners)).reshape(-1, 3),
        face_material=np.repeat([0, 1], [len(at), 1]),
        materials=[Material((1.0, 0.1, 0.1)), Material((0.1, 0.2, 1.0))],
    )


def noisy(texels: int) -> Surface:
    """A sphere with a texture of noise, of so many texels along its equator."""
    mesh = trimesh.creation.icosphere(3)
    x, y, z = mesh.vertices[mesh.faces].transpose(2, 0, 1)
    uvs = np.stack([np.arctan2(y, x) / (2 * np.pi) + 0.5, z / 2 + 0.5], axis=-1)
    texture = np.random.default_rng(1).integers(0, 256, (texels // 2, texels, 3), dtype=np.uint8)
    return Surface(mesh.vertices, mesh.faces, corner_uvs=uvs, materials=[Material(texture=texture)])


@pytest.mark.parametrize("surface", [scene()[0], wires(), *map(noisy, (16, 100, 150, 200, 2000))])
def test_a_picture_is_that_of_all_rays(surface):
    camera = Camera.look_at((0, -3, 0), width=128, height=128)
    lights = Lights.studio(camera)
    ours = shade_surface(surface, camera, lights).astype(float)
    full = fully_sampled(surface, camera, lights).astype(float)
    np.testing.assert_array_equal(ours[..., 3], full[..., 3])
    seen = full[..., 3] > 0
    assert np.abs(ours - full)[seen].mean() < 1


@pytest.mark.parametrize("away", [(50, 0, 0), (0, 0, 50), (0, -10, 0)])
def test_what_lies_beside_or_behind_the_camera_is_not_in_the_picture(away):
    mesh = trimesh.creation.icosphere(2, 0.3)
    surface = Surface(mesh.vertices + away, mesh.faces)
    picture = shade_surface(surface, Camera.look_at((0, -3, 0), width=64, height=48))
    assert picture.shape == (48, 64, 4)
    assert not picture.any()


def test_rims_and_fine_textures_alone_take_several_samples():
    camera = Camera.look_at((0, -3, 0), width=128, height=128)
    for surface, most in ((scene()[0], 1.4), (noisy(16), 1.4), (noisy(2000), 4.0)):
        found = cast_samples(surface, camera, 2)
        pixels = len(np.unique(found.pixel))
        assert found.count.sum() == (cast(surface, camera.resized(256, 256), 1).depth > 0).sum()
        assert len(found.pixel) <= most * pixels
    assert len(found.pixel) > 3 * pixels


def test_reducing_weights_colours_by_alpha():
    image = np.zeros((2, 2, 4), dtype=np.float32)
    image[0, 0] = (1, 0.5, 0, 1)
    np.testing.assert_allclose(reduce_image(image, 2)[0, 0], (1, 0.5, 0, 0.25))
    assert to_bytes(np.array([[[0.5, 1.2, -1, 1]]])).tolist() == [[[128, 255, 0, 255]]]


def test_random_lights_are_reproducible():
    surface, camera = scene(16)
    xray = cast(surface, camera, 1)
    a, b, c = (
        shade(xray, camera, Lights.random(camera, np.random.default_rng(seed)))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_even_light_shows_colours_nearly_as_they_are():
    surface, camera = scene()
    xray = cast(surface, camera, 1)
    image = shade(xray, camera, Lights.even(camera))
    shown, own = image[xray.hit[0]][:, :3], xray.color[0][xray.hit[0]]
    assert np.abs(shown - own).max() < 0.2
    # A little brighter from above.
    assert image[20, 32, 0] > image[44, 32, 0]


def test_lights_by_name():
    _, camera = scene(16)
    assert Lights.preset("studio", camera, 1).sky == Lights.studio(camera).sky
    assert len(Lights.preset("even", camera, 1).strengths) == 0
    random = [Lights.preset("random", camera, seed).sky for seed in (1, 1, 2)]
    assert random[0] == random[1] != random[2]
    with pytest.raises(ValueError, match="lights must be one of"):
        Lights.preset("disco", camera, 1)
