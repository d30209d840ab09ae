"""The texture shows the image in front, and colours that belong to the object behind."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from runtime.xray.coloring import textured, two_sides
from runtime.xray.decoding import Layers
from xray_addon import Surface, cast
from xray_addon.canonical import canonical_camera

CAMERA = canonical_camera(256)
RED, DARK = np.array([0.8, 0.1, 0.1]), np.array([0.1, 0.05, 0.05])
GREEN = np.array([0.1, 0.6, 0.1])


@pytest.fixture
def ball() -> Surface:
    shape = trimesh.creation.icosphere(5, radius=0.5)
    return Surface(shape.vertices, shape.faces)


def layers_of(ball: Surface) -> Layers:
    """The ball's, red in front and dark behind."""
    truth = cast(ball, CAMERA, 2)
    color = np.zeros((2, 256, 256, 3), np.float32)
    color[0], color[1] = RED, DARK
    share = truth.hit.astype(np.float32)
    return Layers(truth.depth, truth.normal, color, share, truth.hit[0], closed=True)


def picture(layers: Layers) -> np.ndarray:
    """A red picture with a white dot in the middle, black beyond the outline."""
    image = np.zeros((256, 256, 4), np.uint8)
    image[layers.outline] = (204, 26, 26, 255)
    image[125:131, 125:131, :3] = 255
    return image.repeat(2, axis=0).repeat(2, axis=1)


def test_the_front_keeps_the_images_detail_and_the_back_has_none(ball: Surface):
    layers = layers_of(ball)
    surface = textured(ball, CAMERA, layers.depth[0], two_sides(layers, picture(layers), CAMERA))
    seen = cast(surface, CAMERA, 2)
    front, back = seen.color
    assert front[128, 128].min() > front[128, 90].min() + 0.3
    np.testing.assert_allclose(front[128, 90], RED, atol=0.05)
    np.testing.assert_allclose(back[128, 128], back[128, 110], atol=0.05)
    # Nothing of the black around the object comes upon it.
    assert front[layers.outline].max(axis=-1).min() > 0.6


def test_a_mirrored_back_shows_what_the_front_shows(ball: Surface):
    layers = layers_of(ball)
    layers.color[0, 112:144, 82:114] = (0, 0, 1)  # left of the middle
    texture = two_sides(layers, picture(layers), CAMERA, mirrored=True)
    np.testing.assert_array_equal(texture[:, :512], texture[:, 512:])
    front, back = cast(textured(ball, CAMERA, layers.depth[0], texture), CAMERA, 2).color
    for side in (front, back):
        assert side[128, 128].min() > side[128, 158].min() + 0.3
        np.testing.assert_allclose(side[128, 98], (0, 0, 1), atol=0.05)
        np.testing.assert_allclose(side[128, 158], RED, atol=0.05)


def test_hidden_colours_drift_less_than_they_are_predicted_to(ball: Surface):
    layers = layers_of(ball)
    back = two_sides(layers, picture(layers), CAMERA)[256, 512 + 256] / 255
    assert np.abs(back - RED).max() < 0.5 * np.abs(DARK - RED).max()


def test_hidden_colours_are_those_seen_at_the_same_height(ball: Surface):
    layers = layers_of(ball)
    layers.color[:] = RED
    layers.color[0, 170:] = GREEN  # a foot below a large cap
    texture = two_sides(layers, picture(layers), CAMERA) / 255
    np.testing.assert_allclose(texture[200, 512 + 256], RED, atol=0.1)
    foot = texture[2 * 190, 512 + 256]
    assert np.abs(foot - GREEN).sum() < np.abs(foot - RED).sum()


def test_colours_meet_at_the_outline(ball: Surface):
    layers = layers_of(ball)
    texture = two_sides(layers, picture(layers), CAMERA) / 255
    column = 2 * int(np.flatnonzero(layers.outline[128])[0]) + 1
    np.testing.assert_allclose(texture[256, column], texture[256, 512 + column], atol=0.1)


def test_what_faces_the_camera_behind_something_is_hidden():
    plates = [
        trimesh.creation.box((0.6, 0.1, 0.6)).apply_translation([0, y, 0]) for y in (-0.3, 0.3)
    ]
    shape = trimesh.util.concatenate(plates)
    surface = Surface(shape.vertices, shape.faces)
    depth = cast(surface, CAMERA, 1).depth[0]
    texture = np.zeros((4, 8, 3), np.uint8)
    texture[:, :4] = 255  # white is the visible half
    seen = cast(textured(surface, CAMERA, depth, texture), CAMERA, 4).color[:, 128, 128, 0]
    np.testing.assert_array_equal(seen > 0.5, [True, False, False, False])


def test_streaks_are_blurred_where_the_ball_is_steep_only(ball: Surface):
    layers = layers_of(ball)
    image = picture(layers)
    image[::8, :, :3] = image[1::8, :, :3] = image[2::8, :, :3] = image[3::8, :, :3] = 0
    layers.color[0, ::4] = layers.color[0, 1::4] = 0  # bands of 2 px
    texture = two_sides(layers, image, CAMERA)[:, :512, 0] / 255
    left, right = 2 * np.flatnonzero(layers.outline[128])[[0, -1]]
    contrast = np.ptp(texture[240:272], axis=0)
    assert contrast[left : left + 4].max() < 0.2
    assert contrast[right - 2 : right + 2].max() < 0.2
    assert contrast[left + 40 : right - 40].min() > 0.5
