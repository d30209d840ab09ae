"""Meshes become coarser and even, and stay what they are."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from runtime.evaluation.looks import sliver_share
from runtime.meshes.remeshing import remesh
from runtime.meshes.smoothing import taubin
from runtime.meshes.topology import topology
from xray_addon import Surface


def edge_lengths(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vertices[faces] - vertices[np.roll(faces, 1, axis=1)], axis=2)


@pytest.mark.parametrize(
    "shape",
    [trimesh.creation.icosphere(5, radius=0.5), trimesh.creation.torus(0.4, 0.15, 160, 80)],
    ids=["sphere", "ring"],
)
def test_edges_become_as_long_as_is_wanted_and_the_topology_stays(shape: trimesh.Trimesh):
    vertices, faces = remesh(shape.vertices, shape.faces, 0.05)
    got = Surface(vertices, faces)
    assert got.is_watertight
    assert topology(got) == topology(Surface(shape.vertices, shape.faces))
    lengths = edge_lengths(vertices, faces)
    assert np.median(lengths) == pytest.approx(0.05, rel=0.2)
    assert np.quantile(lengths, [0.01, 0.99]) == pytest.approx([0.05, 0.05], rel=0.7)
    assert sliver_share(got) == 0
    again = remesh(shape.vertices, shape.faces, 0.05)
    np.testing.assert_array_equal(again[1], faces)
    assert trimesh.Trimesh(vertices, faces).volume == pytest.approx(shape.volume, rel=0.05)


def test_edges_that_are_long_enough_stay():
    shape = trimesh.creation.icosphere(3)
    _, faces = remesh(shape.vertices, shape.faces, 0.01)
    assert len(faces) == len(shape.faces)


def test_smoothing_takes_the_steps_off_and_keeps_the_size():
    shape = trimesh.creation.icosphere(5, radius=0.5)
    off = np.random.default_rng(0).normal(0, 0.004, shape.vertices.shape)
    rough = shape.vertices + off
    calm = taubin(rough, shape.faces, 10)
    spread = np.linalg.norm(rough, axis=1).std()
    assert np.linalg.norm(calm, axis=1).std() < 0.5 * spread
    assert trimesh.Trimesh(calm, shape.faces).volume == pytest.approx(shape.volume, rel=0.02)


def test_nothing_stays_nothing():
    none, faces = np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    assert len(taubin(none, faces, 3)) == 0
