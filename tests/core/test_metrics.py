"""Metrics against formulas and a k-d tree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from xray_addon import chamfer_distance, f_score


def test_two_points_by_hand():
    a, b = [[0, 0, 0], [1, 0, 0]], [[0, 0, 0.5]]
    far = np.sqrt(1.25)
    assert chamfer_distance(a, b) == pytest.approx(((0.5 + far) / 2 + 0.5) / 2)
    assert f_score(a, b, 0.6) == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert f_score(a, b, 0.1) == 0


@given(st.integers(0, 2**31), st.integers(1, 300), st.integers(1, 300), st.floats(0, 1e3))
@settings(max_examples=30, deadline=None)
def test_nearest_distances_are_exact(seed, n, m, offset):
    random = np.random.default_rng(seed)
    a, b = random.random((n, 3)) + offset, random.random((m, 3)) + offset
    forth, back = cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]
    assert chamfer_distance(a, b) == pytest.approx(0.5 * (forth.mean() + back.mean()), rel=1e-9)
    precision, recall = (forth < 0.1).mean(), (back < 0.1).mean()
    both = precision + recall
    assert f_score(a, b, 0.1) == pytest.approx(2 * precision * recall / both if both else 0)


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros((2, 2)), [[np.nan, 0, 0]]])
def test_points_must_be_points(bad):
    with pytest.raises(ValueError, match="finite points"):
        chamfer_distance(bad, [[0, 0, 0]])
