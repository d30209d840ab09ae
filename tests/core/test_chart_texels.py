"""Pixels of charts and of the rings around them: which face each shows, and where."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xray_addon.casting.chart_texels import chart_texels

EDGES = np.ones((1, 3), bool)
HALF = np.array([[[0.0, 0.0], [0.5, 0.0], [0.0, 1.0]]])


def places(found, uvs):
    return np.einsum("kc,kcd->kd", found.weights, uvs[found.face])


def centres(found, size):
    row, column = np.divmod(found.pixel, size)
    return np.stack([(column + 0.5) / size, 1 - (row + 0.5) / size], axis=1)


def test_a_ring_shows_the_nearest_point_of_the_border():
    uvs = HALF * 0.5 + 0.25
    found = chart_texels(uvs, EDGES, 8)
    inside = len(chart_texels(uvs, ~EDGES, 8).pixel)
    assert len(found.pixel) == len(np.unique(found.pixel)) > inside
    np.testing.assert_allclose(places(found, uvs)[:inside], centres(found, 8)[:inside], atol=1e-4)
    ring = places(found, uvs)[inside:]
    low, high = uvs[0].min(axis=0), uvs[0].max(axis=0)
    assert (ring >= low - 1e-12).all()
    assert (ring <= high + 1e-12).all()
    assert np.abs(ring - centres(found, 8)[inside:]).max() <= 1 / 8 + 1e-12
    # Along an edge of the chart one of the weights is zero.
    np.testing.assert_allclose(found.weights[inside:].min(axis=1), 0)


def test_what_is_thinner_than_a_pixel_is_in_the_ring():
    thin = np.array([[[0.2, 0.501], [0.8, 0.501], [0.8, 0.502]]])
    assert len(chart_texels(thin, ~EDGES, 8).pixel) == 0
    found = chart_texels(thin, EDGES, 8)
    assert len(found.pixel) >= 5
    assert np.ptp(places(found, thin)[:, 0]) > 0.59


@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
def test_pixels_come_once_and_weights_stay_inside_the_face(seed, size):
    random = np.random.default_rng(seed)
    uvs = random.random((12, 3, 2))
    found = chart_texels(uvs, random.random((12, 3)) < 0.5, size)
    assert len(np.unique(found.pixel)) == len(found.pixel)
    assert found.weights.min(initial=0) >= 0
    np.testing.assert_allclose(found.weights.sum(axis=1), 1)
