"""`Surface` checks what it is given and tells the truth about itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from xray_addon import Material, Surface


def box() -> Surface:
    mesh = trimesh.creation.box((1, 2, 4))
    return Surface(
        mesh.vertices, mesh.faces, corner_normals=mesh.face_normals[:, None].repeat(3, 1)
    )


@pytest.mark.parametrize(
    "change",
    [
        {"vertices": np.zeros((3, 2))},
        {"faces": np.array([[0, 1, 8]])},
        {"faces": np.array([[0, 1, -1]])},
        {"faces": np.array([[0.5, 1, 2]])},
        {"corner_uvs": np.zeros((1, 3, 2))},
        {"corner_colors": np.zeros((12, 3, 4))},
        {"face_material": np.full(12, 1), "materials": [Material()]},
    ],
)
def test_what_does_not_fit_is_refused(change):
    arguments = {"vertices": box().vertices, "faces": box().faces} | change
    with pytest.raises(ValueError, match=r"must|index"):
        Surface(**arguments)


def test_lists_and_empty_meshes_are_taken():
    assert len(Surface([], []).faces) == 0
    assert Surface([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]]).faces.shape == (1, 3)


def test_textures_must_be_bytes():
    with pytest.raises(ValueError, match="uint8"):
        Material(texture=np.zeros((4, 4, 3)))


@pytest.mark.parametrize(
    "bad", [{"wrap": "around"}, {"interpolation": "cubic"}, {"alpha_threshold": 1.5}]
)
def test_materials_know_a_few_ways_to_wrap_and_clip(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Material(**bad)


def test_bounds_ignore_unused_and_broken_vertices():
    vertices = np.vstack([box().vertices, [[99, 0, 0], [np.nan, 0, 0]]])
    surface = Surface(vertices, np.vstack([box().faces, [[0, 1, 9]]]))
    np.testing.assert_allclose(surface.bounds, [[-0.5, -1, -2], [0.5, 1, 2]])
    with pytest.raises(ValueError, match="no faces"):
        _ = Surface(vertices, np.zeros((0, 3), dtype=int)).bounds


def test_normalized_is_the_published_rule():
    moved = box().transformed(trimesh.transformations.translation_matrix((5, 6, 7)))
    low, high = moved.normalized().bounds
    np.testing.assert_allclose(low + high, 0, atol=1e-12)
    assert (high - low).max() == pytest.approx(1)


def test_a_point_has_no_size_to_normalise():
    with pytest.raises(ValueError, match="single point"):
        Surface(np.zeros((3, 3)), np.array([[0, 1, 2]])).normalized()


def test_mirroring_keeps_the_outside_outside():
    mirrored = box().transformed(np.diag([-1.0, 1, 1, 1]))
    corners = mirrored.vertices[mirrored.faces]
    wound = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.einsum("ij,ij->i", wound, corners.mean(axis=1)) > 0).all()
    assert (np.einsum("ij,ij->i", wound, mirrored.corner_normals[:, 0]) > 0).all()


def test_normals_follow_an_uneven_scale():
    mesh = trimesh.creation.icosphere(3)
    ball = Surface(mesh.vertices, mesh.faces, corner_normals=mesh.vertex_normals[mesh.faces])
    flat = ball.transformed(np.diag([1.0, 1, 0.2, 1]))
    truth = flat.vertices[flat.faces] / np.array([1, 1, 0.04])
    truth /= np.linalg.norm(truth, axis=-1, keepdims=True)
    assert (truth * flat.corner_normals).sum(axis=-1).min() > 0.99


def test_an_object_scaled_to_a_plane_or_a_point_stays_a_surface():
    plane = box().transformed(np.diag([1.0, 1, 0, 1]))
    up = np.abs(box().corner_normals[..., 2]) > 0.5
    np.testing.assert_allclose(np.abs(plane.corner_normals[up]), [[0, 0, 1]] * up.sum())
    point = box().transformed(np.diag([0.0, 0, 0, 1]))
    assert np.isfinite(point.corner_normals).all()


def test_watertight_means_every_edge_has_two_faces():
    assert box().is_watertight
    assert not replace(box(), faces=box().faces[1:], corner_normals=None).is_watertight
    doubled = np.vstack([box().faces, box().faces[:1]])
    assert not replace(box(), faces=doubled, corner_normals=None).is_watertight
    assert not Surface([], []).is_watertight


def test_samples_are_even_over_the_area_and_reproducible():
    points = box().sample(60_000, seed=1)
    np.testing.assert_array_equal(points, box().sample(60_000, seed=1))
    assert not np.array_equal(points, box().sample(60_000, seed=2))
    on_side = np.isclose(np.abs(points[:, 0]), 0.5).mean()
    assert on_side == pytest.approx(16 / 28, abs=0.01)
    assert (np.abs(points) <= np.array([0.5, 1, 2]) + 1e-9).all()


def test_nothing_to_sample_is_an_error():
    with pytest.raises(ValueError, match="no faces"):
        Surface([], []).sample(3)
    with pytest.raises(ValueError, match="no area"):
        Surface(np.zeros((3, 3)), np.array([[0, 1, 2]])).sample(3)


def test_surfaces_are_joined_and_what_one_lacks_is_filled_in():
    red, blue = Material((1.0, 0.0, 0.0)), Material((0.0, 0.0, 1.0))
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    bare = Surface(corners, [[0, 1, 2]])
    full = Surface(
        corners + 5,
        [[0, 1, 2], [0, 2, 1]],
        corner_normals=np.tile([1.0, 0, 0], (2, 3, 1)),
        corner_uvs=np.full((2, 3, 2), 0.5),
        corner_colors=np.full((2, 3, 3), 0.25),
        face_material=[1, 0],
        materials=[red, blue],
    )
    joined = Surface.joined([full, bare, replace(full, materials=[blue, red])])
    assert joined.faces.tolist() == [[0, 1, 2], [0, 2, 1], [3, 4, 5], [6, 7, 8], [6, 8, 7]]
    np.testing.assert_array_equal(joined.vertices[3:6], corners)
    assert joined.corner_normals[2].tolist() == [[0, 0, 1]] * 3
    assert (joined.corner_uvs[2] == 0).all()
    assert (joined.corner_colors[2] == 1).all()
    assert joined.materials[:2] == [red, blue]
    assert joined.face_material.tolist() == [1, 0, 2, 0, 1]
    assert len(joined.materials) == 3  # those that two share, and the plain one of `bare`
    assert Surface.joined([bare, bare]).corner_normals is None
