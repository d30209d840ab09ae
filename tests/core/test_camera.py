"""Cameras follow Blender's axes and keep their pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xray_addon import Camera


def test_look_at_puts_the_target_in_the_middle_and_up_upwards():
    camera = Camera.look_at((3, 0, 0), (0, 0, 0))
    axes = camera.camera_to_world[:3, :3]
    np.testing.assert_allclose(-axes[:, 2], (-1, 0, 0), atol=1e-12)
    np.testing.assert_allclose(axes[:, 1], (0, 0, 1), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(axes), 1)
    np.testing.assert_allclose(camera.position, (3, 0, 0))


def test_looking_straight_down_still_gives_a_camera():
    camera = Camera.look_at((0, 0, 2))
    np.testing.assert_allclose(-camera.camera_to_world[:3, 2], (0, 0, -1), atol=1e-12)


def test_world_to_camera_is_the_inverse():
    camera = Camera.look_at((1, 2, 3), (0, 0, 1))
    np.testing.assert_allclose(
        camera.world_to_camera @ camera.camera_to_world, np.eye(4), atol=1e-12
    )


def test_rays_are_unit_and_span_the_field_of_view():
    camera = Camera(100, 50, math.pi / 2, np.eye(4), pixel_offset=0.0)
    left, right = camera.ray_directions(np.array([25, 25]), np.array([0, 100]))
    np.testing.assert_allclose(left, np.array([-1, 0, -1]) / math.sqrt(2))
    np.testing.assert_allclose(right, np.array([1, 0, -1]) / math.sqrt(2))
    top = camera.ray_directions(np.array(0), np.array(50))
    assert top[1] > 0


def test_resized_keeps_the_view():
    camera = Camera(64, 32, 0.7, np.eye(4), cx=20, cy=10)
    large = camera.resized(128, 64)
    small_ray = camera.ray_directions(np.array(3.5), np.array(7.5))
    large_ray = large.ray_directions(np.array(7.5), np.array(15.5))
    np.testing.assert_allclose(small_ray, large_ray, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"camera_to_world": np.diag([2.0, 2, 2, 1])}, "rigid"),
        ({"camera_to_world": np.eye(3)}, r"\(4, 4\)"),
        ({"camera_to_world": np.full((4, 4), np.nan)}, "finite"),
        ({"width": 0}, "positive"),
        ({"fov_x": 4.0}, "fov_x"),
    ],
)
def test_impossible_cameras_are_refused(change, message):
    arguments = {"width": 4, "height": 4, "fov_x": 1.0, "camera_to_world": np.eye(4)} | change
    with pytest.raises(ValueError, match=message):
        Camera(**arguments)


def test_a_camera_cannot_stand_on_its_target():
    with pytest.raises(ValueError, match="same point"):
        Camera.look_at((0, 0, 0))
