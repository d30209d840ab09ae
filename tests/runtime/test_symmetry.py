"""Mirror planes: what samples say of them, and what a solid makes of one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh

from runtime.xray.data import training_sample
from runtime.xray.sampling import mirrored_planes
from runtime.xray.symmetry import azimuths, labels, likenesses, mirror_azimuth
from xray_addon.canonical import place
from xray_addon.surface import Surface


def surface_of(mesh: trimesh.Trimesh) -> Surface:
    return Surface(mesh.vertices, mesh.faces)


def table() -> Surface:
    """A box that is longer than wide."""
    return surface_of(trimesh.creation.box((1.0, 0.4, 0.3)))


def lever() -> Surface:
    """A box with a knob off its middle: only the mirror plane with its normal along y is left."""
    knob = trimesh.creation.box((0.2, 0.2, 0.4)).apply_translation((0.4, 0, 0.3))
    return surface_of(trimesh.util.concatenate([trimesh.creation.box((1.0, 0.4, 0.3)), knob]))


def test_planes_of_known_shapes():
    def degrees(surface: Surface) -> set[float]:
        found = np.degrees(azimuths(72))[likenesses(surface) > 0.5]
        return set(np.round(found / 10) * 10 % 180)

    assert degrees(table()) == {0, 90}
    assert degrees(lever()) == {90}
    assert (likenesses(surface_of(trimesh.creation.icosphere())) > 0.5).all()
    twisted = np.array([[0, 0, 0], [1, 0, 0.1], [0.2, 0.5, 0.3], [0.6, 0.2, 0.9]])
    tetrahedron = Surface(twisted, np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]]))
    assert likenesses(tetrahedron).max() < 0.5


def test_a_flat_object_is_searched_while_denormals_are_flushed():
    torch.set_flush_denormal(True)
    try:
        flat = surface_of(trimesh.creation.box((1.0, 0.4, 0.0)))
        assert likenesses(flat)[0] > 0.5
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("azimuth", [0.0, 0.7, 4.0])
def test_labels_are_those_of_the_object_as_it_is_seen(azimuth):
    matrix, _ = place(lever(), azimuth, 0.3)
    seen = labels(likenesses(lever().transformed(matrix)), 0.0, 36)
    np.testing.assert_allclose(labels(likenesses(lever()), azimuth, 36), seen, atol=0.3)
    found = mirror_azimuth(seen)
    assert math.sin(found - (math.pi / 2 - azimuth)) == pytest.approx(0, abs=math.radians(3))


def test_a_mirror_shows_planes_at_minus_their_azimuths():
    matrix, _ = place(lever(), 0.5, 0.3)
    seen = lever().transformed(matrix)
    flipped = Surface(seen.vertices * [-1, 1, 1], seen.faces[:, ::-1])
    planes = labels(likenesses(seen), 0.0, 36)
    image, frames = np.zeros((8, 8, 4), np.float32), np.zeros((2, 8, 4, 4), np.float32)
    sample = training_sample(image, frames, (0.0, 0.0), planes, mirrored=True)["planes"]
    torch.testing.assert_close(sample, mirrored_planes(torch.from_numpy(planes)[None])[0])
    np.testing.assert_allclose(sample, labels(likenesses(flipped), 0.0, 36), atol=0.3)


def test_the_likeliest_plane_lies_between_azimuths():
    likelihood = np.zeros(36, np.float32)
    likelihood[[35, 0, 1]] = 0.8, 0.9, 0.6
    assert math.degrees(mirror_azimuth(likelihood)) == pytest.approx(-1.25)
    assert mirror_azimuth(likelihood / 2) is None
    assert mirror_azimuth(np.ones(36, np.float32)) is not None
