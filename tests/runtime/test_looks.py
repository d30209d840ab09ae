"""How meshes look, in figures: each tells what it is for, and only that."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from runtime.evaluation.cases import in_camera
from runtime.evaluation.looks import (
    base_height,
    flat_share,
    hidden_colors,
    roughness,
    sliver_share,
)
from runtime.meshes.topology import outline_holes, topology
from xray_addon import Surface, cast
from xray_addon.canonical import canonical_camera
from xray_addon.xray import Points


def _surface(mesh: trimesh.Trimesh) -> Surface:
    return Surface(mesh.vertices, mesh.faces)


def _joined(*meshes: trimesh.Trimesh) -> Surface:
    return _surface(trimesh.util.concatenate(meshes))


@pytest.fixture
def ball() -> trimesh.Trimesh:
    return trimesh.creation.icosphere(4, radius=0.4)


def test_handles_and_islands_are_counted(ball: trimesh.Trimesh):
    ring = trimesh.creation.torus(0.3, 0.1)
    crumb = trimesh.creation.icosphere(1, radius=0.02).apply_translation([1, 0, 0])
    assert topology(_surface(ball)) == topology(_surface(trimesh.creation.box()))
    assert topology(_surface(ball)).handles == 0
    assert topology(_surface(ring)).handles == 1
    both = topology(_joined(ball, crumb, ring.apply_translation([0, 0, 3])))
    assert (both.islands, both.handles) == (2, 1)


def test_seams_and_borders_are_no_handles(ball: trimesh.Trimesh):
    split = Surface(
        ball.vertices[ball.faces].reshape(-1, 3), np.arange(ball.faces.size).reshape(-1, 3)
    )
    assert topology(split) == topology(_surface(ball))
    middle = ball.triangles_center[:, 2]
    tube = _surface(trimesh.Trimesh(ball.vertices, ball.faces[np.abs(middle) < 0.2], process=False))
    assert (topology(tube).islands, topology(tube).handles) == (0, 0)


def test_the_outline_shows_handles_that_no_part_has():
    """A frame of four bars, none of which has a hole, and a ball."""
    bars = [trimesh.creation.box((0.8, 0.1, 0.1)).apply_translation([0, 0, z]) for z in (-0.3, 0.3)]
    bars += [
        trimesh.creation.box((0.1, 0.1, 0.8)).apply_translation([x, 0, 0]) for x in (-0.3, 0.3)
    ]
    frame = _joined(*bars)
    assert topology(frame).handles == 0
    camera = canonical_camera(64)
    assert outline_holes(cast(frame, camera, 1).hit[0]) == 1
    ball = _surface(trimesh.creation.icosphere(3, radius=0.4))
    assert outline_holes(cast(ball, camera, 1).hit[0]) == 0
    assert outline_holes(np.ones((8, 8), bool)) == outline_holes(np.zeros((8, 8), bool)) == 0


def test_slivers_are_thin_triangles_of_any_size():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0.5, 0.8, 0], [0.5, 0.1, 0]])
    assert sliver_share(Surface(vertices, [[0, 1, 2]])) == 0
    assert sliver_share(Surface(vertices * 1e-3, [[0, 1, 2], [0, 1, 3]])) == 0.5


def test_roughness_is_of_the_side_that_is_rough(ball: trimesh.Trimesh):
    camera = canonical_camera(64)  # looks along +y
    smooth = roughness(_surface(ball), camera, 0.8)
    dents = np.random.default_rng(0).uniform(0.95, 1.05, len(ball.vertices))
    behind = ball.vertices[:, 1] > 0.1
    rough = trimesh.Trimesh(
        ball.vertices * np.where(behind, dents, 1)[:, None], ball.faces, process=False
    )
    found = roughness(_surface(rough), camera, 0.8)
    assert found["hidden"] > 3 * smooth["hidden"]
    assert found["seen"] == pytest.approx(smooth["seen"], rel=0.2)
    finer = roughness(_surface(ball.subdivide()), camera, 0.8)
    assert finer["seen"] == pytest.approx(smooth["seen"], abs=0.5)


def test_a_box_stands_flat_and_a_ball_does_not(ball: trimesh.Trimesh):
    box = _surface(trimesh.creation.box((0.8, 0.5, 0.4)))
    assert flat_share(box, 0.8) > 0.99
    assert flat_share(_surface(ball), 0.8) < 0.1
    assert base_height(box, 0.99, 0.8) < 1e-3
    assert base_height(_surface(ball), 1.0, 0.8) > 0.1


def test_hidden_colours_are_compared_where_the_truth_hides_something():
    box = trimesh.creation.box((0.5, 0.5, 0.5))
    red = np.broadcast_to([0.8, 0.0, 0.0], (12, 3, 3))
    surface = Surface(box.vertices, box.faces, corner_colors=red)
    camera = canonical_camera(64)
    truth = cast(surface, camera, 4)
    first = truth.index < 64 * 64
    truth.hit_color[first] = (0.2, 0.0, 0.0)
    behind = in_camera(truth.points(camera).positions[~first], camera)
    green = behind[:, 2] + 0.5  # another one at each depth, so that places count
    truth.hit_color[~first, 1] = green
    colors = truth.hit_color[~first] - [0.3, 0.0, 0.0]
    found = hidden_colors(Points(behind, behind, colors), truth, camera, 0)
    expected = {"color": 0.1, "front": (0.6 + green.mean()) / 3, "mean": (0.6 + green.mean()) / 3}
    assert found == pytest.approx(expected, abs=0.01)
    prediction = Points(behind + np.array([0.0, 0.0, 0.6]), behind, colors)
    assert hidden_colors(prediction, truth, camera, 0)["color"] > 0.13
    assert hidden_colors(prediction, cast(surface, camera, 1), camera, 0) == {}
