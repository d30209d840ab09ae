"""Random objects to train on."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from runtime.meshes.collection import list_meshes
from runtime.training import random_objects
from runtime.training.random_objects import SHARES, RandomObject
from runtime.training.random_objects.kinds import ball, boxes, furniture
from runtime.training.random_objects.painting import painted
from runtime.training.random_objects.solids import Parts
from runtime.xray.training import Trainer, TrainingConfig
from xray_addon.surface import Surface

SAMPLES = 6  # of each kind


@pytest.mark.parametrize("kind", SHARES)
def test_each_kind_makes_closed_objects_that_face_outwards(kind):
    made = (kind(np.random.default_rng([7, i])) for i in itertools.count())
    for surface in itertools.islice(filter(None, made), SAMPLES):
        corners = surface.vertices[surface.faces]
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        volume = np.einsum("ij,ij->", corners[:, 0], across) / 6
        assert 0 < volume < 1.0001 * np.prod(np.ptp(surface.bounds, axis=0))
        # The faces of a closed surface point in all directions alike.
        assert np.abs(across.sum(axis=0)).max() < 1e-6 * np.abs(across).sum()
        normals = surface.corner_normals
        np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-6)
        large = np.linalg.norm(across, axis=1) > 1e-5
        agree = np.einsum("ijk,ik->ij", normals, across)[large] > 0
        assert agree.mean() > 0.95
        assert 0 <= surface.corner_colors.min() <= surface.corner_colors.max() <= 1


def test_only_the_largest_piece_is_kept():
    parts = Parts()
    parts.add(ball([-0.8, 0, 0], [0.3, 0.3, 0.3]), np.full(3, 0.5))
    parts.add(ball([0.8, 0, 0], [0.4, 0.4, 0.4]), np.full(3, 0.5))
    surface = parts.surface(np.random.default_rng(0))
    np.testing.assert_allclose(surface.bounds, [[0.4, -0.4, -0.4], [1.2, 0.4, 0.4]], atol=0.02)


@pytest.mark.parametrize("kind", [boxes, furniture])
def test_boards_have_exact_edges(kind):
    surface = kind(np.random.default_rng(0))
    assert np.isin(np.abs(surface.corner_normals[..., 2]).round(6), (0, 1)).all()


def test_an_object_is_always_the_same_and_others_differ():
    first, again, other = (RandomObject(number).read() for number in (4, 4, 5))
    np.testing.assert_array_equal(first.vertices, again.vertices)
    np.testing.assert_array_equal(first.corner_colors, again.corner_colors)
    assert not np.array_equal(first.vertices, other.vertices)
    assert first.longest_side == pytest.approx(1)
    np.testing.assert_allclose(first.bounds.mean(axis=0), 0, atol=1e-6)


def test_kinds_come_as_often_as_they_should(monkeypatch):
    drawn = []

    def fake(name):
        def made(_random):
            drawn.append(name)
            return Surface(np.eye(3), [[0, 1, 2]])

        return made

    shares = {kind.__name__: share for kind, share in SHARES.items()}
    fakes = {fake(name): share for name, share in shares.items()}
    monkeypatch.setattr(random_objects, "SHARES", fakes)
    random = np.random.default_rng(0)
    for _ in range(2000):
        random_objects.random_object(random)
    found = {name: count / 2000 for name, count in Counter(drawn).items()}
    assert found == pytest.approx(shares, abs=0.03)


def test_paint_is_as_given_or_a_pattern():
    points = np.random.default_rng(0).uniform(-1, 1, (500, 3))
    grey = np.full((500, 3), 0.5)
    found = [painted(np.random.default_rng(i), points, points, grey) for i in range(200)]
    plain = np.mean([np.array_equal(colors, grey) for colors in found])
    assert plain == pytest.approx(0.3, abs=0.1)
    assert all(0 <= colors.min() <= colors.max() <= 1 for colors in found)
    assert max(len(np.unique(colors, axis=0)) for colors in found) > 100


def test_a_run_adds_them_to_its_meshes(config, meshes):
    found = Trainer(replace(config, random_objects=2), "cpu").dataset(meshes)
    assert found.meshes.files == [*list_meshes(meshes), RandomObject(0), RandomObject(1)]
    drawn = {found.meshes.choose(np.random.default_rng(i)) for i in range(60)}
    assert drawn == set(range(len(found.meshes.files)))
    assert len(next(iter(found))["frames"]) == config.layers


def test_a_negative_number_is_refused():
    with pytest.raises(ValueError, match="random_objects must be"):
        replace(TrainingConfig(), random_objects=-1)
