"""A leaning body is set upright by lowering the camera and moving its layers along the rays."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from test_centering import CAMERA, layers_of

from runtime.xray.decoding import Layers
from runtime.xray.uprighting import TILTED, righting_angle, turned


def pillar() -> Layers:
    """The true layers of something that stands."""
    return layers_of(trimesh.creation.box((0.3, 0.3, 1.0)), 0.4)


def elevation(camera) -> float:
    return math.asin(camera.position[2] / camera.distance)


def test_what_stands_is_not_turned():
    assert abs(righting_angle(pillar(), CAMERA)) < 0.02


@pytest.mark.parametrize("lean", [0.5, 0.2, -0.3])
def test_what_leans_is_set_upright_again(lean: float):
    truth = pillar()
    leaning, camera = turned(truth, CAMERA, lean)
    assert elevation(camera) == pytest.approx(elevation(CAMERA) + (1 - TILTED) * lean)
    assert camera.distance == pytest.approx(CAMERA.distance)
    angle = righting_angle(leaning, camera)
    assert angle == pytest.approx(-lean, abs=0.05)
    righted, back = turned(leaning, camera, angle)
    assert elevation(back) == pytest.approx(elevation(CAMERA), abs=0.03)
    hit = truth.depth > 0
    np.testing.assert_allclose(righted.depth[hit], truth.depth[hit], atol=0.02)
    assert np.abs(leaning.depth[hit] - truth.depth[hit]).max() > 0.05 * abs(lean)
    assert (righted.depth[~hit] == 0).all()


def test_a_share_of_the_angle_rights_a_part():
    leaning, camera = turned(pillar(), CAMERA, 0.5)
    half, lower = turned(leaning, camera, righting_angle(leaning, camera) / 2)
    assert righting_angle(half, lower) == pytest.approx(-0.25, abs=0.05)


def test_planes_stay_planes_with_normals_of_their_own():
    """The normals of the tilted front fit its tilted points."""
    leaning, camera = turned(pillar(), CAMERA, 0.8)
    rows, columns = np.nonzero(leaning.outline)
    points = camera.ray_directions(rows, columns) * leaning.depth[0][rows, columns, None]
    normals = leaning.normal[0][rows, columns]
    # The pixels of one face of the box: those with the most common normal.
    face = (normals @ np.median(normals, axis=0)) > 0.99
    assert face.sum() > 50
    away = (points[face] - points[face].mean(axis=0)) @ normals[face].mean(axis=0)
    assert np.abs(away).max() < 0.01


def test_layers_without_a_body_stay():
    layers = pillar()
    empty = replace(layers, depth=np.zeros_like(layers.depth))
    assert righting_angle(empty, CAMERA) == 0
    assert turned(empty, CAMERA, 0) == (empty, CAMERA)
