"""Predicted layers are moved along the rays to where the frame has the object's middle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from runtime.xray.centering import SHARE, centered
from runtime.xray.decoding import Layers
from xray_addon import Surface, cast
from xray_addon.canonical import canonical_camera, place

CAMERA = canonical_camera(64, 0.3)


def layers_of(mesh: trimesh.Trimesh, azimuth: float = 0.0) -> Layers:
    """The true layers of `mesh`, placed in the frame."""
    surface = Surface(mesh.vertices, mesh.faces)
    placed = place(surface, azimuth, 0.3)
    assert placed is not None
    truth = cast(surface.transformed(placed[0]), CAMERA, 4)
    share = truth.hit.astype(np.float32)
    return Layers(truth.depth, truth.normal, truth.color, share, truth.hit[0], closed=True)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_what_is_too_near_or_too_far_is_moved_most_of_the_way_back(factor: float):
    layers = layers_of(trimesh.creation.cylinder(radius=0.3, height=1.0))
    moved = centered(replace(layers, depth=layers.depth * factor), CAMERA)
    hit = layers.depth > 0
    ratio = moved.depth[hit] / layers.depth[hit]
    assert ratio.std() < 1e-5  # one factor for all: the image stays the same
    assert abs(ratio.mean() - 1) < (1 - SHARE + 0.1) * abs(factor - 1)


@pytest.mark.parametrize("azimuth", [0.0, 0.4, 1.2])
def test_what_is_in_its_place_hardly_moves(azimuth: float):
    layers = layers_of(trimesh.creation.box((1.0, 0.4, 0.6)), azimuth)
    moved = centered(layers, CAMERA)
    hit = layers.depth > 0
    np.testing.assert_allclose(moved.depth[hit], layers.depth[hit], rtol=0.01)
    assert (moved.depth[~hit] == 0).all()


def test_layers_without_hits_stay():
    layers = layers_of(trimesh.creation.box((1.0, 0.4, 0.6)))
    empty = replace(layers, share=np.zeros_like(layers.share))
    assert centered(empty, CAMERA) is empty
