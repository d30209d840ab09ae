"""Noisy depths of planes and of bodies come back calm, with their edges."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy import ndimage

from runtime.xray.piecewise_planar import piecewise_planar
from xray_addon import Surface, cast
from xray_addon.canonical import canonical_camera

CAMERA = canonical_camera(256, 0.4)


def back(shape: trimesh.Trimesh) -> tuple[np.ndarray, np.ndarray]:
    """The depth (256, 256) of the back, continued to all pixels, and where it is known."""
    xray = cast(Surface(shape.vertices, shape.faces), CAMERA, 2)
    known = xray.hit[1]
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return xray.depth[1][tuple(nearest)], known


def box() -> trimesh.Trimesh:
    turned = trimesh.transformations.rotation_matrix(0.7, (0, 0, 1))
    return trimesh.creation.box((0.6, 0.5, 0.7), turned)


def dents(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(256, 256))
    noise = ndimage.gaussian_filter(noise, 5)
    return (0.02 * noise / noise.std()).astype(np.float32)


def test_exact_depths_hardly_change():
    for shape in (box(), trimesh.creation.icosphere(5, radius=0.45)):
        depth, known = back(shape)
        inner = ndimage.binary_erosion(known, iterations=8)
        change = np.abs(piecewise_planar(depth, known, CAMERA) - depth)[inner]
        assert np.median(change) < 0.005
        assert np.quantile(change, 0.95) < 0.025


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_dents_vanish_and_edges_stay(seed: int):
    depth, known = back(box())
    dented = depth + dents(seed)
    inner = ndimage.binary_erosion(known, iterations=4)

    def error(got: np.ndarray) -> float:
        return float(np.abs(got - depth)[inner].mean())

    blurred = [error(ndimage.gaussian_filter(dented, sigma)) for sigma in (3, 6, 9, 13, 20)]
    fitted = error(piecewise_planar(dented, known, CAMERA))
    assert fitted < 0.7 * error(dented)
    assert fitted < 0.85 * min(blurred)


def test_a_plane_goes_on_beyond_the_mask():
    plate = trimesh.creation.box(
        (3, 0.1, 3), trimesh.transformations.rotation_matrix(0.5, (0, 0, 1))
    )
    depth, known = back(plate)
    mask = np.zeros_like(known)
    mask[100:150, 100:160] = True
    wrong = np.where(mask, depth, depth[125, 130])
    near = ndimage.binary_dilation(mask, iterations=8)
    assert known[near].all()
    off = np.abs(piecewise_planar(wrong, mask, CAMERA) - depth)
    assert off[mask].max() < 0.01
    assert np.median(off[near & ~mask]) < 0.01


def test_a_single_pixel_and_all_pixels_are_masks_too():
    depth = np.full((256, 256), 1.5, np.float32)
    for mask in (np.zeros((256, 256), bool), np.ones((256, 256), bool)):
        mask[0, 0] = True
        np.testing.assert_allclose(piecewise_planar(depth, mask, CAMERA), depth, atol=0.05)
