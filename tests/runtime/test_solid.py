"""Predicted layers become those of one calm solid, and its mesh loses the steps of the pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from runtime.xray.solid import CELL, smooth_surface, solid_layers
from xray_addon import Surface, XRay, cast, reconstruct
from xray_addon.canonical import canonical_camera

CAMERA = canonical_camera(256, 0.3)
GREY = 0.5


def surface(shape: trimesh.Trimesh) -> Surface:
    return Surface(shape.vertices, shape.faces)


def sphere(radius: float = 0.5) -> Surface:
    return surface(trimesh.creation.icosphere(5, radius=radius))


def box(x: float = 0.7, y: float = 0.6, z: float = 0.5) -> Surface:
    return surface(trimesh.creation.box((x, y, z)))


def solid(shape: Surface, layers: int = 4, noise: float = 0.0) -> tuple[XRay, XRay]:
    """The true X-Ray of `shape`, and what `solid_layers` makes of it with `noise` in its depths."""
    truth = cast(shape, CAMERA, layers)
    off = np.random.default_rng(0).normal(0, noise, truth.depth.shape).astype(np.float32)
    depth = np.where(truth.hit, np.maximum.accumulate(truth.depth + off), 0).astype(np.float32)
    color = np.full((*truth.shape, 3), GREY, dtype=np.float32)
    share = truth.hit[1::2].astype(np.float32)
    return truth, solid_layers(depth, color, share, truth.hit[0], CAMERA)


def volume(shape: Surface) -> float:
    a, b, c = np.moveaxis(shape.vertices[shape.faces].astype(np.float64), 1, 0)
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


@pytest.mark.parametrize("shape", [sphere(), box()], ids=["sphere", "box"])
def test_a_solids_layers_come_back_within_a_cell(shape: Surface):
    truth, got = solid(shape)
    np.testing.assert_array_equal(got.hit[0], truth.hit[0])  # the outline is kept to the pixel
    off = cKDTree(shape.sample(200_000)).query(got.points(CAMERA).positions)[0]
    assert np.median(off) < CELL
    assert np.quantile(off, 0.99) < 2 * CELL


def test_normals_are_those_of_the_surface():
    truth, got = solid(sphere())
    both = got.hit & truth.hit
    cosine = (got.normal * truth.normal).sum(axis=-1)[both]
    assert np.median(cosine) > 0.99
    assert (cosine > 0.8).mean() > 0.95
    np.testing.assert_allclose(np.linalg.norm(got.hit_normal, axis=1), 1, atol=1e-5)


def test_noise_is_calmed():
    truth, got = solid(sphere(), noise=0.04)
    both = got.hit[0] & truth.hit[0]
    off = (got.depth[0] - truth.depth[0])[both]
    assert np.std(off) < 0.02


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(["sphere", "box", "ring"]),
    st.floats(0.15, 0.7),
    st.floats(0.15, 0.7),
    st.floats(0.02, 0.7),
    # Training, which other tests of the process do, has the CPU flush denormals.
    st.floats(0, 0.08, allow_subnormal=False),
)
def test_any_solid_comes_back_closed_with_its_outside_outside(kind, x, y, z, noise):
    shape = {
        "sphere": surface(trimesh.creation.icosphere(4)),
        "box": box(2, 2, 2),
        "ring": surface(trimesh.creation.torus(0.7, 0.3, 48, 24)),
    }[kind]
    shape = replace(shape, vertices=shape.vertices * np.array([x, y, z]) / 2)
    _, got = solid(shape, noise=noise)
    depth = np.where(got.hit, got.depth, np.inf)
    assert (depth[1:] >= depth[:-1]).all()
    assert (got.hit.sum(axis=0) % 2 == 0).all()  # a ray that enters leaves
    mesh = smooth_surface(reconstruct(got, CAMERA), 10)
    assert mesh.is_watertight
    assert volume(mesh) > 0
    assert np.isfinite(mesh.vertices).all()


def test_a_wall_of_a_pixel_and_a_rod_are_kept():
    for shape in (box(0.6, 0.01, 0.6), box(0.02, 0.02, 0.7)):
        truth, got = solid(shape)
        assert got.hit[:2].sum() == truth.hit[:2].sum()
        mesh = smooth_surface(reconstruct(got, CAMERA), 10)
        assert mesh.is_watertight
        np.testing.assert_allclose(
            np.ptp(mesh.bounds, axis=0)[2], np.ptp(shape.bounds, axis=0)[2], rtol=0.05
        )


def test_an_unlikely_pair_is_no_solid():
    truth = cast(sphere(), CAMERA, 4)
    depth = truth.depth.copy()
    depth[2:] = np.where(truth.hit[0], depth[1] + np.array([0.1, 0.3])[:, None, None], 0)
    share = np.stack([truth.hit[0], 0.1 * truth.hit[0]]).astype(np.float32)
    color = np.full((*truth.shape, 3), GREY, dtype=np.float32)
    got = solid_layers(depth, color, share, truth.hit[0], CAMERA)
    assert got.hits_per_layer[2:].sum() == 0


def test_colours_are_those_of_the_nearest_layer():
    truth = cast(sphere(), CAMERA, 2)
    color = np.zeros((*truth.shape, 3), dtype=np.float32)
    color[0, ..., 0] = color[1, ..., 2] = 1
    share = truth.hit[:1].astype(np.float32)
    got = solid_layers(truth.depth, color, share, truth.hit[0], CAMERA)
    np.testing.assert_array_equal(got.color[0][got.hit[0]].mean(axis=0), [1, 0, 0])
    np.testing.assert_array_equal(got.color[1][got.hit[1]].mean(axis=0), [0, 0, 1])


def test_nothing_likely_is_an_empty_xray():
    none = np.zeros((4, 64, 64), dtype=np.float32)
    camera = canonical_camera(64)
    got = solid_layers(none, np.zeros((4, 64, 64, 3)), none[:2], none[0] > 0, camera)
    assert got.shape == (4, 64, 64)
    assert len(got.index) == 0


def test_smoothing_takes_the_steps_off_and_keeps_the_size():
    shape = sphere()
    off = np.random.default_rng(0).normal(0, 0.004, shape.vertices.shape)
    rough = replace(shape, vertices=shape.vertices + off)
    calm = smooth_surface(rough, 10)
    radius = np.linalg.norm(calm.vertices, axis=1)
    assert radius.std() < 0.5 * np.linalg.norm(rough.vertices, axis=1).std()
    assert volume(calm) == pytest.approx(volume(shape), rel=0.02)
    np.testing.assert_array_equal(calm.faces, rough.faces)
    outward = (calm.corner_normals * calm.vertices[calm.faces]).sum(axis=-1)
    assert outward.min() > 0.4


def test_smoothing_nothing_is_nothing():
    empty = Surface(np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64))
    assert len(smooth_surface(empty, 10).faces) == 0
