"""`transforms.json` round-trips cameras and reads the published layout."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from xray_addon import Camera, XRayError
from xray_addon.dataset.cameras import sampled_cameras
from xray_addon.files.transforms import (
    read_applied_transform,
    read_transforms,
    write_transforms,
)
from xray_addon.slices.layout import Views, write_splits


def test_cameras_come_back(tmp_path):
    cameras = [*sampled_cameras(3, 0, 64)]
    write_transforms(tmp_path / "transforms.json", cameras, ["000", "001", "002"])
    again = read_transforms(tmp_path / "transforms.json", 64, 64)
    assert list(again) == ["000", "001", "002"]
    for camera, other in zip(cameras, again.values(), strict=True):
        np.testing.assert_allclose(other.camera_to_world, camera.camera_to_world)
        assert (other.fov_x, other.cx, other.pixel_offset) == (camera.fov_x, 32, 0.5)
    larger = read_transforms(tmp_path / "transforms.json", 128, 128)["000"]
    assert (larger.width, larger.cx) == (128, 64)


def test_where_the_object_was_comes_back(tmp_path):
    path, cameras = tmp_path / "transforms.json", sampled_cameras(1, 0, 64)
    write_transforms(path, cameras, ["000"], np.eye(4))
    assert np.array_equal(read_applied_transform(path), np.eye(4))
    assert "applied_transform" not in json.loads(path.read_text())
    matrix = np.array([[0, -2.0, 0, 1], [2, 0, 0, -3], [0, 0, 2, 0.5], [0, 0, 0, 1]])
    write_transforms(path, cameras, ["000"], matrix)
    assert np.array_equal(read_applied_transform(path), matrix)
    written = json.loads(path.read_text())
    assert np.shape(written["applied_transform"]) == (3, 4)  # as Nerfstudio has it
    for wrong in (np.zeros((3, 4)).tolist(), [[1.0]], "x"):
        path.write_text(json.dumps({**written, "applied_transform": wrong}))
        with pytest.raises(XRayError, match=r"is not a transforms\.json"):
            read_applied_transform(path)


def test_a_dataset_has_the_same_bytes_on_windows(tmp_path, monkeypatch):
    real = Path.write_text

    def as_on_windows(self, data, *arguments, newline=None, **options):
        return real(self, data, *arguments, newline=newline or "\r\n", **options)

    monkeypatch.setattr(Path, "write_text", as_on_windows)
    write_transforms(tmp_path / "transforms.json", sampled_cameras(1, 0, 64), ["000"])
    Views.drawn(2, seed=1).write(tmp_path)
    write_splits(tmp_path, {"train": ["b", "a"]})
    written = [tmp_path / "transforms.json", tmp_path / "meta.json", *tmp_path.rglob("*.lst")]
    assert len(written) == 6
    assert not any(b"\r" in path.read_bytes() for path in written)


def test_the_published_layout_means_corner_rays(tmp_path):
    matrix = Camera.look_at((0, -1.2, 0)).camera_to_world.tolist()
    frame = {"file_path": "./000.png", "transform_matrix": matrix, "c2w": matrix}
    path = tmp_path / "transforms.json"
    path.write_text(json.dumps({"camera_angle_x": 0.857, "frames": [frame]}))
    camera = read_transforms(path, 256, 256)["000"]
    assert (camera.fov_x, camera.pixel_offset, camera.cx) == (0.857, 0.0, 128)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"camera_angle_x": 1, "frames": [{"file_path": "a"}]}']
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "transforms.json"
    path.write_text(content)
    with pytest.raises(XRayError) as caught:
        read_transforms(path, 8, 8)
    assert caught.value.code == "bad_transforms"
    with pytest.raises(XRayError, match="no file"):
        read_transforms(tmp_path / "none.json", 8, 8)


def test_one_file_holds_one_field_of_view(tmp_path):
    cameras = [Camera(8, 8, fov, np.eye(4)) for fov in (0.5, 0.6)]
    with pytest.raises(ValueError, match="field of view"):
        write_transforms(tmp_path / "t.json", cameras, ["a", "b"])


def test_sampled_views_follow_the_published_rule():
    cameras = sampled_cameras(500, 3, 32)
    positions = np.array([camera.position for camera in cameras])
    np.testing.assert_allclose(np.linalg.norm(positions, axis=1), 1.2)
    elevation = np.degrees(np.arcsin(positions[:, 2] / 1.2))
    assert elevation.min() >= 0
    assert elevation.max() <= 45
    assert elevation.mean() == pytest.approx(22.5, abs=2)
    assert abs(positions[:, :2].mean()) < 0.1
    for camera in cameras[:5]:
        towards = -camera.position / 1.2
        np.testing.assert_allclose(-camera.camera_to_world[:3, 2], towards, atol=1e-12)
        assert math.isclose(camera.fov_x, 0.8575560450553894)
    again = sampled_cameras(500, 3, 32)
    np.testing.assert_array_equal(positions, [camera.position for camera in again])
