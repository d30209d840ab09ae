"""A layer as faces: they lie on the surface, face outwards, and end where it jumps."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from xray_addon import Camera, Surface, cast
from xray_addon.layer_meshes import layer_faces


def ball_and_wall(size: int = 48):
    """A ball before a wall, seen from the front: one layer holds both."""
    ball = trimesh.creation.icosphere(3, 0.4)
    wall = np.array([[-1, 1, -1], [1, 1, -1], [1, 1, 1], [-1, 1, 1]]) * [1.2, 0.8, 1.2]
    surface = Surface(
        np.concatenate([ball.vertices, wall]),
        np.concatenate([ball.faces, np.array([[0, 1, 2], [0, 2, 3]]) + len(ball.vertices)]),
    )
    camera = Camera.look_at((0, -2, 0), width=size, height=size)
    return cast(surface, camera, 4), camera


def layer_points(xray, camera, layer):
    stop = np.cumsum(xray.hits_per_layer)
    part = slice(stop[layer] - xray.hits_per_layer[layer], stop[layer])
    points = xray.points(camera)
    return points.positions[part], points.normals[part]


def test_a_sheet_ends_where_the_surface_jumps():
    xray, camera = ball_and_wall()
    points, _ = layer_points(xray, camera, 0)
    quads, triangles = layer_faces(xray, camera, 0)
    on_wall = points[:, 1] > 0.6
    assert 0 < on_wall.sum() < len(points)
    for faces in (quads, triangles):
        assert len(faces)
        sides = on_wall[faces].sum(axis=1)
        assert set(sides) <= {0, faces.shape[1]}
    # Nearly every hit is part of the sheet.
    used = np.unique(np.concatenate([quads.reshape(-1), triangles.reshape(-1)]))
    assert len(used) > 0.97 * len(points)


@pytest.mark.parametrize("layer", [0, 1])
def test_faces_are_wound_as_the_normals_say(layer):
    xray, camera = ball_and_wall()
    points, normals = layer_points(xray, camera, layer)
    quads, triangles = layer_faces(xray, camera, layer)
    for faces in (quads, triangles):
        a, b, c = (points[faces[:, i]] for i in range(3))
        flat = np.cross(b - a, c - b)
        agree = np.einsum("ij,ij->i", flat, normals[faces].mean(axis=1)) > 0
        assert agree.mean() > 0.98


def test_a_layer_without_hits_has_no_faces():
    xray, camera = ball_and_wall()
    quads, triangles = layer_faces(xray, camera, 3)
    assert (quads.shape, triangles.shape) == ((0, 4), (0, 3))


def test_the_camera_must_fit():
    xray, camera = ball_and_wall()
    with pytest.raises(ValueError, match="48x48 pixels"):
        layer_faces(xray, camera.resized(24, 24), 0)
