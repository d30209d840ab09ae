"""The published layout of slices: what is written is what the published code would read."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import trimesh

from xray_addon import Surface, XRayError, cast
from xray_addon.slices.layout import (
    Views,
    distance_samples,
    read_split,
    seen_distances,
    write_slices,
    write_splits,
)
from xray_addon.slices.signed_distance import PUBLISHED_LEVEL
from xray_addon.slices.slicing import NAMES


def chair() -> Surface:
    """Something without symmetry: an L of two boxes, off the origin."""
    seat = trimesh.creation.box((2, 1.4, 0.5))
    back = trimesh.creation.box((0.4, 1.4, 2)).apply_translation((0.8, 0, 1.2))
    mesh = trimesh.util.concatenate([seat, back]).apply_translation((5, -3, 2))
    return Surface(mesh.vertices, mesh.faces)


def test_views_follow_the_published_rule_and_their_seed():
    views = Views.drawn(12, seed=1)
    np.testing.assert_allclose(np.degrees(views.azimuths), 30 * np.arange(12), atol=1e-9)
    degrees = np.degrees(views.elevations)
    assert degrees.min() > -10
    assert degrees.max() < 40
    assert 0.75 <= views.scale <= 1.1
    assert views == Views.drawn(12, seed=1)
    assert views != Views.drawn(12, seed=2)


def test_meta_is_kept_as_json_and_as_the_published_pickle(tmp_path):
    views = Views.drawn(12, seed=4)
    views.write(tmp_path)
    assert Views.read(tmp_path) == views
    k, azimuths, elevations, distances, poses, scale, offset = pickle.loads(
        (tmp_path / "meta.pkl").read_bytes()
    )
    assert np.shape(k) == (3, 3)
    assert k[0][0] == pytest.approx(256 * 35 / 32)
    assert (tuple(azimuths), tuple(elevations)) == (views.azimuths, views.elevations)
    assert distances == [1.2] * 12
    assert np.shape(poses) == (12, 3, 4)
    assert (scale, offset) == (views.scale, [0, 0, 0])
    # The camera sees the origin 1.2 ahead, in the middle.
    np.testing.assert_allclose(np.array(poses)[:, :, 3], [[0, 0, 1.2]] * 12, atol=1e-12)


def test_a_pickle_alone_is_not_read(tmp_path):
    Views.drawn(2, seed=0).write(tmp_path)
    (tmp_path / "meta.json").unlink()
    with pytest.raises(XRayError, match="pickle") as caught:
        Views.read(tmp_path)
    assert caught.value.code == "bad_dataset"


@pytest.mark.parametrize("view", [0, 4, 7])
def test_samples_lie_where_the_view_shows_the_object(view):
    surface = chair()
    views = Views.drawn(12, seed=3)
    found = distance_samples(surface, seed=0, count=4000)
    points, distances = seen_distances(found, views, view)
    # Points clearly inside project onto the object, and none clearly before what is seen.
    camera = views.cameras[view]
    placed = surface.transformed(views.placed(surface))
    xray = cast(placed, camera, 1)
    inside = points[distances < -0.01]
    ahead = inside[:, 2] + 1.2
    column = (inside[:, 0] / ahead * camera.focal + camera.width / 2).astype(int)
    row = (inside[:, 1] / ahead * camera.focal + camera.height / 2).astype(int)
    depth = xray.depth[0, row, column]
    assert (depth > 0).all()
    away = np.linalg.norm(inside + np.array([0, 0, 1.2]), axis=1)
    assert (away > depth - 0.01).all()
    assert (distances == ((found[:, 3] - PUBLISHED_LEVEL) * views.scale).astype(np.float32)).all()


def test_stored_points_have_y_up_and_a_diagonal_of_one():
    found = distance_samples(chair(), seed=0, count=4000)
    inside = found[found[:, 3] < 0, :3]
    extent = np.ptp(inside, axis=0)
    size = np.array([2, 2.45, 1.4]) / np.linalg.norm([2, 2.45, 1.4])
    np.testing.assert_allclose(extent, size, atol=0.05)
    # The back rises at +x.
    assert inside[inside[:, 1] > 0.2, 0].min() > 0


def test_slices_are_named_as_published(tmp_path):
    write_slices(tmp_path, np.zeros((12, 4, 4, 4), dtype=np.uint8))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"{name}.png" for name in NAMES)


def test_splits_are_lists_of_uids(tmp_path):
    write_splits(tmp_path, {"train": ["b", "a"], "val": ["c"]})
    assert read_split(tmp_path, "train") == ["a", "b"]
    assert read_split(tmp_path, "trainval") == ["a", "b", "c"]
    with pytest.raises(XRayError) as caught:
        read_split(tmp_path, "test")
    assert caught.value.code == "no_data"
