"""Signed distances beside formulas, and the samples that Slice3D is trained on."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from xray_addon import Surface, XRayError
from xray_addon.slices.signed_distance import (
    PUBLISHED_BANDS,
    PUBLISHED_LEVEL,
    SignedDistance,
    samples,
)
from xray_addon.slices.slicing import placement


def surface(mesh: trimesh.Trimesh) -> Surface:
    return Surface(mesh.vertices, mesh.faces)


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1.2, 1.2, (2000, 3))


def test_a_box_is_measured_exactly(points):
    size = np.array([1.0, 0.6, 0.8])
    beyond = np.abs(points) - size / 2
    outside = np.linalg.norm(np.maximum(beyond, 0), axis=1)
    wanted = outside + np.minimum(beyond.max(axis=1), 0)
    got = SignedDistance(surface(trimesh.creation.box(size)))(points)
    np.testing.assert_allclose(got, wanted, atol=1e-12)


def test_a_fine_ball_and_torus_are_measured_as_finely(points):
    ball = SignedDistance(surface(trimesh.creation.icosphere(5, 0.7)))
    np.testing.assert_allclose(ball(points), np.linalg.norm(points, axis=1) - 0.7, atol=1e-3)
    torus = SignedDistance(surface(trimesh.creation.torus(0.6, 0.25, 256, 128)))
    ring = np.linalg.norm(points[:, :2], axis=1) - 0.6
    wanted = np.hypot(ring, points[:, 2]) - 0.25
    np.testing.assert_allclose(torus(points), wanted, atol=1e-3)


def test_groups_of_faces_count_as_their_faces_do(points):
    mesh = trimesh.creation.icosphere(4, 0.7)
    mesh.vertices *= (1, 0.5, 0.3)
    field = SignedDistance(surface(mesh))
    corners = mesh.vertices[mesh.faces]
    for place in points[:50]:
        a, b, c = (corners - place).swapaxes(0, 1)
        la, lb, lc = (np.linalg.norm(v, axis=1) for v in (a, b, c))
        dots = la * lb * lc + (a * b).sum(1) * lc + (b * c).sum(1) * la + (c * a).sum(1) * lb
        angle = 2 * np.arctan2(np.einsum("ij,ij->i", a, np.cross(b, c)), dots).sum()
        assert field.winding(place[None])[0] == pytest.approx(angle / (4 * np.pi), abs=0.03)


def test_a_hole_does_not_turn_the_inside_out():
    mesh = trimesh.creation.icosphere(4, 0.5)
    open_at_top = mesh.faces[mesh.triangles_center[:, 2] < 0.45]
    field = SignedDistance(Surface(mesh.vertices, open_at_top))
    assert field([[0, 0, 0], [0, 0, -0.4]])[0] == pytest.approx(-0.5, abs=0.06)
    assert (field([[0, 0, 0.9], [0.9, 0, 0]]) > 0).all()


def test_pieces_that_overlap_are_one_inside():
    mesh = trimesh.creation.icosphere(3, 0.4)
    both = trimesh.util.concatenate([mesh, mesh.copy().apply_translation((0.3, 0, 0))])
    assert (SignedDistance(surface(both))([[0.15, 0, 0], [-0.2, 0, 0], [0.5, 0, 0]]) < 0).all()


@pytest.mark.parametrize("faces", [1, 3, 8, 9, 100])
def test_any_number_of_faces_will_do(faces, points):
    random = np.random.default_rng(faces)
    soup = Surface(random.normal(size=(3 * faces, 3)), np.arange(3 * faces).reshape(-1, 3))
    distance = SignedDistance(soup).distance(points[:50])
    near = SignedDistance(soup).on_surface(20_000, random)
    rough = np.linalg.norm(points[:50, None] - near[None], axis=2).min(axis=1)
    assert (distance <= rough + 1e-9).all()
    assert (rough - distance).max() < 0.5


def test_samples_follow_the_published_bands_and_repeat_with_their_seed():
    mesh = trimesh.creation.box((1, 0.8, 0.9))
    placed = surface(mesh).transformed(placement(surface(mesh)))
    found = samples(placed, 4000, seed=3)
    assert found.shape == (4000, 4)
    assert found.dtype == np.float32
    counts, _ = np.histogram(found[:, 3] - PUBLISHED_LEVEL, PUBLISHED_BANDS)
    np.testing.assert_array_equal(counts, 1000)
    np.testing.assert_allclose(SignedDistance(placed)(found[:, :3]), found[:, 3], atol=1e-6)
    np.testing.assert_array_equal(samples(placed, 4000, seed=3), found)
    assert not np.array_equal(samples(placed, 4000, seed=4), found)


def test_bands_that_a_thin_object_cannot_fill_are_made_up_for():
    mesh = trimesh.creation.box((1, 1, 0.02))
    placed = surface(mesh).transformed(placement(surface(mesh)))
    found = samples(placed, 1000)
    assert found.shape == (1000, 4)
    assert (found[:, 3] < 0).sum() > 100
    assert found[:, 3].min() > -0.03


def test_what_encloses_nothing_is_told():
    sheet = trimesh.creation.box((1, 1, 0.001))
    one_side = sheet.faces[sheet.face_normals[:, 2] > 0.5]
    with pytest.raises(XRayError) as caught:
        samples(Surface(sheet.vertices, one_side), 500)
    assert caught.value.code == "encloses_nothing"
    with pytest.raises(XRayError) as caught:
        samples(surface(trimesh.creation.icosphere(2, 0.5)).flipped(), 500)
    assert caught.value.code == "encloses_nothing"
    with pytest.raises(XRayError) as caught:
        SignedDistance(Surface(np.zeros((3, 3)), np.array([[0, 1, 2]])))
    assert caught.value.code == "no_surface"
    with pytest.raises(ValueError, match="points"):
        SignedDistance(surface(sheet))([[0, 0, np.nan]])
