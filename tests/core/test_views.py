"""Where the cameras of a dataset stand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xray_addon import Camera
from xray_addon.camera import PUBLISHED_FOV_X
from xray_addon.dataset.cameras import dataset_cameras, item_seed, placed
from xray_addon.files.transforms import write_transforms
from xray_addon.settings.dataset import DatasetSettings


def cameras(uid="chair", **values):
    return dataset_cameras(DatasetSettings(**values), uid)


def eyes(views):
    return np.array([camera.position for camera in views])


def elevations(views):
    positions = eyes(views)
    return np.degrees(np.arcsin(positions[:, 2] / np.linalg.norm(positions, axis=1)))


def test_the_published_rule():
    views = cameras(views=2000)
    assert views[0].fov_x == PUBLISHED_FOV_X
    assert np.allclose(np.linalg.norm(eyes(views), axis=1), 1.2)
    found = elevations(views)
    assert found.min() >= 0
    assert 44 < found.max() <= 45
    assert np.median(found) == pytest.approx(22.5, abs=1)  # even over the angle, not the area


def test_all_around_evenly_over_the_area():
    up = eyes(cameras(cameras="sphere", views=4000, distance=1.0))[:, 2]
    counts = np.histogram(up, bins=10, range=(-1, 1))[0]
    assert counts.min() > 320
    assert counts.max() < 480


@pytest.mark.parametrize(
    ("rule", "expected"), [("turntable", [30, 30, 30, 30]), ("ring", [30, -30, 30, -30])]
)
def test_even_steps_around_from_the_front(rule, expected):
    views = cameras(cameras=rule, views=4, elevation=30.0)
    assert np.allclose(elevations(views), expected)
    azimuth = np.degrees(np.arctan2(eyes(views)[:, 1], eyes(views)[:, 0]))
    assert np.allclose(azimuth % 360, [270, 0, 90, 180])


def test_another_uid_has_other_cameras_and_the_same_one_the_same():
    assert np.array_equal(eyes(cameras("a")), eyes(cameras("a")))
    assert not np.allclose(eyes(cameras("a")), eyes(cameras("b")))
    assert not np.allclose(eyes(cameras("a")), eyes(cameras("a", seed=1)))
    assert 0 <= item_seed(0, "a") < 2**31


def test_jitter_is_a_share_of_the_distance():
    moved = eyes(cameras(cameras="turntable", views=500, jitter=0.1, distance=2.0))
    still = eyes(cameras(cameras="turntable", views=500, distance=2.0))
    shift = np.linalg.norm(moved - still, axis=1)
    assert shift.max() <= 0.2
    assert shift.max() > 0.18


def test_poses_keep_principal_point_and_order(tmp_path):
    matrix = Camera.look_at((0, -2, 1)).camera_to_world
    written = [Camera(64, 64, 0.7, matrix, cx=20.0, cy=40.0), Camera.look_at((1, 1, 1), fov_x=0.7)]
    write_transforms(tmp_path / "t.json", written, ["b", "a"])
    first, second = cameras(cameras="poses", poses=str(tmp_path / "t.json"), size=32, views=1)
    assert (first.width, first.cx, first.cy, first.fov_x) == (32, 10.0, 20.0, 0.7)
    assert np.allclose(first.position, (0, -2, 1))
    assert np.allclose(second.position, (1, 1, 1))


def test_placed_cameras_see_the_object_where_it_is():
    (camera,) = placed([Camera.look_at((0, -1.2, 0))], np.array([10.0, 20.0, 30.0]), 2.0)
    assert np.allclose(camera.position, (10, 17.6, 30))
    assert math.isclose(camera.fov_x, PUBLISHED_FOV_X)
