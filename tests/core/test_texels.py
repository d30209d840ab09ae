"""Texels that triangles cover: exactly those, each once, in tiles as in one piece."""

from __future__ import annotations

import numpy as np

from xray_addon.casting import texels
from xray_addon.casting.texels import cast_uvs, covered_texels


def grid(cells: int) -> np.ndarray:
    """(2 * cells ** 2, 3, 2) triangles that tile the image."""
    low = np.stack(np.meshgrid(*[np.arange(cells)] * 2), axis=-1).reshape(-1, 1, 2)
    lower, upper = np.array([[0, 0], [1, 0], [1, 1]]), np.array([[0, 0], [1, 1], [0, 1]])
    return np.concatenate([low + lower, low + upper]) / cells


def together(uvs, size):
    pieces = list(covered_texels(uvs, size))
    return [np.concatenate(part) for part in zip(*pieces, strict=True)]


def test_texels_are_those_whose_centres_a_triangle_covers():
    uvs = np.array([[[0.0, 0.0], [0.5, 0.0], [0.0, 1.0]]])
    texel, face, weights = together(uvs, 4)
    assert sorted(texel.tolist()) == [4, 8, 12, 13]
    assert (face == 0).all()
    row, column = np.divmod(texel, 4)
    centre = np.stack([(column + 0.5) / 4, 1 - (row + 0.5) / 4], axis=1)
    np.testing.assert_allclose(weights @ uvs[0], centre)


def test_each_texel_is_covered_once_where_edges_lie_on_centres():
    # The diagonals of all cells run through texels' centres.
    texel, _, weights = together(grid(4), 32)
    assert np.array_equal(np.sort(texel), np.arange(32 * 32))
    assert weights.min() > -1e-9
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert cast_uvs(grid(4), 32, 2).hits_per_layer.tolist() == [32 * 32, 0]


def test_tiles_join_without_a_seam(monkeypatch):
    random = np.random.default_rng(0)
    uvs = random.random((40, 3, 2))
    whole = together(uvs, 50)
    monkeypatch.setattr(texels, "TILE", 16)
    pieces = together(uvs, 50)
    order = np.argsort(pieces[0])
    assert np.array_equal(pieces[0][order], whole[0])
    shared = pieces[1][order] == whole[1]  # of triangles that overlap either may be seen
    np.testing.assert_allclose(pieces[2][order][shared], whole[2][shared])


def test_what_lies_beyond_the_image_is_left_out():
    uvs = np.array([[[-1.0, -1.0], [3.0, -1.0], [-1.0, 3.0]]])
    assert len(together(uvs, 8)[0]) == 64
    assert not len(together(uvs + 5, 8)[0])
