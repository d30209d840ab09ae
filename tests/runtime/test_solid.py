"""Predicted layers become one calm, closed mesh."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from runtime.evaluation.looks import base_height, sliver_share
from runtime.meshes.topology import topology
from runtime.xray.decoding import Layers
from runtime.xray.solid import CELL, GROWTH, solid_mesh
from xray_addon import Surface, cast
from xray_addon.canonical import canonical_camera

CAMERA = canonical_camera(256, 0.3)


def surface(shape: trimesh.Trimesh) -> Surface:
    return Surface(shape.vertices, shape.faces)


def sphere(radius: float = 0.5) -> Surface:
    return surface(trimesh.creation.icosphere(5, radius=radius))


def box(x: float = 0.7, y: float = 0.6, z: float = 0.5) -> Surface:
    return surface(trimesh.creation.box((x, y, z)))


def layers_of(shape: Surface, count: int = 4, noise: float = 0.0) -> Layers:
    """The true layers of `shape`, with `noise` in their depths."""
    truth = cast(shape, CAMERA, count)
    off = np.random.default_rng(0).normal(0, noise, truth.depth.shape).astype(np.float32)
    depth = np.where(truth.hit, np.maximum.accumulate(truth.depth + off), 0).astype(np.float32)
    share = np.repeat(truth.hit[1::2], 2, axis=0).astype(np.float32)
    return Layers(depth, truth.normal, truth.color, share, truth.hit[0], closed=True)


def solid(shape: Surface, noise: float = 0.0) -> Surface:
    return Surface(*solid_mesh(layers_of(shape, noise=noise), CAMERA))


def volume(shape: Surface) -> float:
    a, b, c = np.moveaxis(shape.vertices[shape.faces].astype(np.float64), 1, 0)
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


@pytest.mark.parametrize("shape", [sphere(), box()], ids=["sphere", "box"])
def test_a_solid_comes_back_about_as_large_as_it_was(shape: Surface):
    got = solid(shape)
    off = cKDTree(shape.sample(200_000)).query(got.sample(10_000))[0]
    assert np.median(off) < GROWTH + CELL / 2
    assert np.quantile(off, 0.99) < GROWTH + 3 * CELL


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from(["sphere", "box", "ring"]),
    st.floats(0.15, 0.7),
    st.floats(0.15, 0.7),
    st.floats(0.1, 0.7),
    # Training, which other tests of the process do, has the CPU flush denormals.
    st.floats(0, 0.08, allow_subnormal=False),
)
def test_any_solid_comes_back_closed_even_and_with_its_outside_outside(kind, x, y, z, noise):
    shape = {
        "sphere": surface(trimesh.creation.icosphere(4)),
        "box": box(2, 2, 2),
        "ring": surface(trimesh.creation.torus(0.7, 0.3, 48, 24)),
    }[kind]
    got = solid(Surface(shape.vertices * np.array([x, y, z]) / 2, shape.faces), noise)
    assert got.is_watertight
    assert volume(got) > 0
    assert np.isfinite(got.vertices).all()
    assert sliver_share(got) < 0.01


def test_a_wall_of_a_pixel_and_a_rod_are_kept_whole():
    for shape in (box(0.6, 0.01, 0.6), box(0.02, 0.02, 0.7)):
        got = solid(shape)
        assert got.is_watertight
        assert topology(got).islands == 0
        np.testing.assert_allclose(
            np.ptp(got.bounds, axis=0)[2], np.ptp(shape.bounds, axis=0)[2], rtol=0.1
        )


def test_the_body_reaches_to_the_last_likely_pair():
    """Two plates, one behind the other."""
    plates = [
        trimesh.creation.box((0.6, 0.1, 0.6)).apply_translation([0, y, 0]) for y in (-0.3, 0.3)
    ]
    layers = layers_of(surface(trimesh.util.concatenate(plates)))
    both = Surface(*solid_mesh(layers, CAMERA))
    layers.share[2:] *= 0.2
    first = Surface(*solid_mesh(layers, CAMERA))
    assert volume(first) < 0.6 * volume(both)
    assert topology(both).islands == topology(both).handles == 0


def test_crumbs_are_left_out():
    crumb = trimesh.creation.icosphere(2, radius=0.03).apply_translation([0.45, 0, 0.4])
    both = trimesh.util.concatenate([trimesh.creation.icosphere(4, radius=0.3), crumb])
    got = solid(surface(both))
    assert topology(got).islands == 0
    assert got.bounds[1, 0] < 0.4


@pytest.mark.parametrize("radius", [0.09, 0.3])
def test_closed_hollows_are_filled(radius: float):
    hollow = trimesh.creation.icosphere(4, radius=radius)
    hollow.invert()
    got = solid(
        surface(trimesh.util.concatenate([trimesh.creation.icosphere(5, radius=0.45), hollow]))
    )
    assert topology(got).islands == 0
    assert volume(got) == pytest.approx(volume(sphere(0.45)), rel=0.1)


def test_a_hollow_stays_where_the_image_shows_it():
    """A cup that leans to the viewer, beside a cylinder of the same size."""
    wall = trimesh.creation.annulus(r_min=0.35, r_max=0.4, height=0.5)
    floor = trimesh.creation.cylinder(radius=0.4, height=0.05)
    cup = trimesh.util.concatenate([wall, floor.apply_translation([0, 0, -0.275])])
    full = trimesh.creation.cylinder(radius=0.4, height=0.55)
    lean = trimesh.transformations.rotation_matrix(0.4, (1, 0, 0))
    shapes = [surface(shape.apply_transform(lean)) for shape in (cup, full)]
    assert volume(solid(shapes[0])) < 0.85 * volume(solid(shapes[1]))


def test_a_lumpy_base_becomes_flat():
    shape = trimesh.creation.box((0.6, 0.6, 0.6)).subdivide_to_size(0.05)
    lumps = 0.02 * np.random.default_rng(0).normal(size=len(shape.vertices))
    shape.vertices[:, 2] += np.where(shape.vertices[:, 2] < -0.29, lumps, 0)
    lumpy = surface(shape)
    assert base_height(solid(lumpy), 0.8, 0.6) < 0.4 * base_height(lumpy, 0.8, 0.6)


@pytest.mark.parametrize(
    ("raised", "foot", "least", "most"),
    [(0.04, 0.0, 0.5, 0.75), (0.04, 0.1, 0.9, 1.1), (0.15, 0.1, 0.3, 0.6), (0.15, 0.4, 0.9, 1.1)],
)
def test_an_underside_near_the_ground_is_extended_to_it(raised, foot, least, most):
    """The underside of a box rises to the back, where the image does not show it."""
    wedge = trimesh.creation.box((0.7, 0.6, 0.5))
    wedge.vertices[(wedge.vertices[:, 1] > 0) & (wedge.vertices[:, 2] < 0), 2] += raised
    layers = layers_of(surface(wedge))
    got = Surface(*solid_mesh(layers, CAMERA, foot))
    corners = got.vertices[got.faces]
    base = corners[(corners[..., 2] < got.bounds[0, 2] + 0.001).all(axis=1)]
    sides = base[:, 1:] - base[:, :1]
    area = float(np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum() / 2)
    assert least < area / (0.7 * 0.6) < most
    seen = cast(got, CAMERA, 1).hit[0]
    assert (seen & ~layers.outline).sum() < 0.02 * layers.outline.sum()


def test_nothing_likely_is_an_empty_mesh():
    none = np.zeros((4, 64, 64), dtype=np.float32)
    layers = Layers(none, none[..., None], none[..., None], none, none[0] > 0, closed=True)
    vertices, faces = solid_mesh(layers, canonical_camera(64))
    assert len(vertices) == len(faces) == 0
