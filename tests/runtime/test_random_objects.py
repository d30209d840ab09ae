"""Random objects to train on."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from runtime.meshes.collection import MeshCache, list_meshes
from runtime.meshes.topology import topology
from runtime.training.random_objects import SHARES, RandomObject
from runtime.training.random_objects.kinds import boxes, figure, furniture, vessel
from runtime.xray.training import Trainer, TrainingConfig

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


@pytest.mark.parametrize("kind", [figure, vessel])
def test_solids_are_one_piece_without_overlaps(kind):
    made = (kind(np.random.default_rng([8, i])) for i in itertools.count())
    for surface in itertools.islice(filter(None, made), SAMPLES):
        assert topology(surface).islands == 0


@pytest.mark.parametrize("kind", [boxes, furniture])
def test_boards_have_exact_edges(kind):
    surface = kind(np.random.default_rng(0))
    assert np.isin(np.abs(surface.corner_normals[..., 2]).round(6), (0, 1)).all()


def test_an_object_is_always_the_same_and_others_differ():
    first, again, other = (RandomObject(number).read() for number in (4, 4, 5))
    np.testing.assert_array_equal(first.vertices, again.vertices)
    np.testing.assert_array_equal(first.corner_colors, again.corner_colors)
    assert first.vertices.shape != other.vertices.shape
    assert first.longest_side == pytest.approx(1)
    np.testing.assert_allclose(first.bounds.mean(axis=0), 0, atol=1e-6)


def test_all_kinds_come_and_figures_most_often():
    sources = [RandomObject(number) for number in range(3)]
    cache = MeshCache(sources)
    assert {cache.choose(np.random.default_rng(i)) for i in range(30)} == {0, 1, 2}
    assert sum(SHARES.values()) == pytest.approx(1)
    assert max(SHARES, key=SHARES.__getitem__) is figure


def test_a_run_adds_them_to_its_meshes(config, meshes):
    found = Trainer(replace(config, random_objects=2), "cpu").dataset(meshes)
    assert found.meshes.files == [*list_meshes(meshes), RandomObject(0), RandomObject(1)]
    assert len(next(iter(found))["frames"]) == config.layers


def test_a_negative_number_is_refused():
    with pytest.raises(ValueError, match="random_objects must be"):
        replace(TrainingConfig(), random_objects=-1)
