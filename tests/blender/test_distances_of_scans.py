"""Signed distances to scans beside two independent libraries: Blender's BVH tree and Embree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from mathutils.bvhtree import BVHTree

from xray_addon import Surface
from xray_addon.slices.signed_distance import samples
from xray_addon.slices.slicing import placement

SCANS = 10
POINTS = 2000


def scans(assets: Path) -> list[Path]:
    return sorted((assets / "bench" / "gso_geometry").glob("*.glb"))[:SCANS]


@pytest.mark.parametrize("number", range(SCANS))
def test_samples_of_a_scan(assets, number):
    mesh = trimesh.load(scans(assets)[number], force="mesh")
    surface = Surface(mesh.vertices, mesh.faces)
    placed = surface.transformed(placement(surface))
    found = samples(placed, POINTS, seed=number).astype(np.float64)
    tree = BVHTree.FromPolygons(placed.vertices.tolist(), placed.faces.tolist())
    distance = np.array([tree.find_nearest(point)[3] for point in found[:, :3].tolist()])
    np.testing.assert_allclose(np.abs(found[:, 3]), distance, atol=2e-6)
    closed = trimesh.Trimesh(placed.vertices, placed.faces)  # merges vertices along seams
    if not closed.is_watertight or len(closed.split(only_watertight=False)) > 1:
        pytest.skip("Embree counts crossings, which tells an inside only of one closed surface")
    off = np.abs(found[:, 3]) > 1e-4
    inside = closed.contains(found[off, :3])
    assert (inside == (found[off, 3] < 0)).mean() > 0.998
