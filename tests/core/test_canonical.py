"""Objects are placed in the generators' frame by the rule that it states."""

from __future__ import annotations

import math

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_addon import Surface, cast
from xray_addon.canonical import (
    CANONICAL,
    DISTANCE,
    FAR,
    FILL,
    NEAR,
    canonical_camera,
    change_of_depths,
    place,
)

SIZE = 256


@given(
    st.tuples(*[st.floats(0.2, 1.0)] * 3),
    st.floats(-math.pi, math.pi),
    st.floats(-0.35, 1.05),
    st.floats(1e-3, 1e3),
)
@settings(max_examples=40, deadline=None)
def test_the_silhouette_is_centred_and_fills_its_share(extents, azimuth, elevation, unit):
    mesh = trimesh.creation.box(np.array(extents) * unit)
    surface = Surface(mesh.vertices + 5 * unit, mesh.faces)
    placed = place(surface, azimuth, elevation)
    if placed is None:
        return
    matrix, scale = placed
    moved = surface.transformed(matrix)
    xray = cast(moved, canonical_camera(SIZE, elevation), 4)
    row, column = np.nonzero(xray.hit[0])
    height, width = np.ptp(row) + 1, np.ptp(column) + 1
    assert max(height, width) == pytest.approx(FILL * SIZE, abs=2)
    assert row.min() + row.max() == pytest.approx(SIZE - 1, abs=2)
    assert column.min() + column.max() == pytest.approx(SIZE - 1, abs=2)
    assert xray.hit_depth.min() > NEAR
    # `scale` is the size of the longest side; turning about z and scaling keeps lengths' ratio.
    edge = np.linalg.norm(matrix[:3, :3], axis=0) * np.array(extents).max() * unit
    np.testing.assert_allclose(edge, scale, rtol=1e-9)


@pytest.mark.parametrize("times", [1.0, 2.5, 6.0])
def test_from_afar_the_object_has_its_size_in_the_image(times):
    frame = CANONICAL.from_afar(times)
    mesh = trimesh.creation.box((0.5, 1.0, 0.7))
    matrix, _ = place(Surface(mesh.vertices, mesh.faces), 0.7, 0.4, frame=frame)
    moved, camera = Surface(mesh.vertices, mesh.faces).transformed(matrix), frame.camera(SIZE, 0.4)
    assert camera.distance == pytest.approx(times * DISTANCE)
    xray = cast(moved, camera, 2)
    row, column = np.nonzero(xray.hit[0])
    assert max(np.ptp(row), np.ptp(column)) + 1 == pytest.approx(FILL * SIZE, abs=2)
    # The canonical depths are as far from the middle plane as the points are.
    pixels = np.divmod(xray.index % SIZE**2, SIZE)
    canonical = canonical_camera(SIZE, 0.4)
    factor, offset = change_of_depths(camera, canonical, *pixels)
    ahead = (xray.hit_depth * factor + offset) * -canonical.ray_directions(*pixels)[:, 2]
    points = xray.points(camera).positions @ camera.camera_to_world[:3, 2]
    np.testing.assert_allclose(DISTANCE - ahead, points, atol=1e-5)
    back, away = change_of_depths(canonical, camera, *pixels)
    np.testing.assert_allclose(back * factor, 1, rtol=1e-12)
    np.testing.assert_allclose(back * offset + away, 0, atol=1e-12)


def test_up_stays_up_and_azimuth_turns_the_object():
    mesh = trimesh.creation.cone(0.3, 1.0)
    matrix, _ = place(Surface(mesh.vertices, mesh.faces), 1.2, 0.5)
    np.testing.assert_allclose(matrix[2, :2], 0, atol=1e-12)
    assert matrix[2, 2] > 0
    # What faced the viewer's side (azimuth a from -y) now faces -y.
    side = np.array([math.sin(1.2), -math.cos(1.2), 0])
    turned = matrix[:3, :3] @ side
    np.testing.assert_allclose(turned / np.linalg.norm(turned), (0, -1, 0), atol=1e-9)


def test_the_camera_looks_at_the_origin_from_its_elevation():
    camera = canonical_camera(8, 0.4)
    np.testing.assert_allclose(np.linalg.norm(camera.position), DISTANCE)
    assert camera.position[1] < 0
    assert math.asin(camera.position[2] / DISTANCE) == pytest.approx(0.4)


def test_a_view_along_a_long_thin_object_has_no_place():
    mesh = trimesh.creation.box((0.05, 4, 0.05))
    surface = Surface(mesh.vertices, mesh.faces)
    assert place(surface, 0.0, 0.0) is None
    assert place(surface, math.pi / 2, 0.0) is not None
    assert NEAR < DISTANCE < FAR


def test_what_is_placed_leaning_stands_upright_before_a_rolled_camera():
    mesh = trimesh.creation.box((0.2, 0.3, 1.0))
    surface = Surface(mesh.vertices, mesh.faces)
    roll, elevation = 0.2, 0.3
    matrix, _ = place(surface, 0.7, elevation, roll=roll)
    upright = canonical_camera(SIZE, elevation)
    leaning = matrix[:3, 2] @ upright.camera_to_world[:3, :3]  # its axis in the image
    assert math.atan2(-leaning[0], leaning[1]) == pytest.approx(roll, abs=0.02)
    rolled = canonical_camera(SIZE, elevation, roll)
    np.testing.assert_allclose(rolled.position, upright.position)
    moved = upright.world_to_camera @ matrix
    up = (rolled.camera_to_world @ moved)[:3, 2]
    np.testing.assert_allclose(up / np.linalg.norm(up), (0, 0, 1), atol=1e-9)
