"""Slice3D beside what its authors' code gave, stage by stage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree

from runtime.meshes.extraction import Sparse, march, sample_distances
from runtime.slice3d.diffusion import Schedule, SliceDiffusion, alphas_cumulated
from runtime.slice3d.networks import SliceField
from runtime.slice3d.preparation import centred, network_image
from runtime.slice3d.weights import load_diffusion, load_field, load_regression

RTOL = 2e-4  # of the greatest value, as the golden README asks
HALF_RTOL = 2e-3  # for answers that are stored in half precision
DIFFUSION_RTOL = 5e-4


def agree(got: torch.Tensor | np.ndarray, wanted: np.ndarray, rtol: float = RTOL) -> None:
    got = np.asarray(got, dtype=np.float64)
    assert got.shape == wanted.shape
    rtol = max(rtol, HALF_RTOL) if wanted.dtype == np.float16 else rtol
    wanted = wanted.astype(np.float64)
    assert np.abs(got - wanted).max() <= rtol * np.abs(wanted).max()


def answers(golden: Path, case: str) -> dict[str, np.ndarray]:
    with np.load(golden / case / "expected.npz") as archive:
        return dict(archive)


def checkpoint(golden: Path, case: str, folder: Path) -> Path:
    """The case's checkpoint in its published container."""
    command = [sys.executable, str(golden / "weights.py"), "make", case, str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.iterdir())


def camera_points(queries: np.ndarray) -> torch.Tensor:
    """Published queries (y up, z to the viewer) in the networks' axes: (1, N, 3)."""
    return torch.from_numpy(queries)[None] * torch.tensor([1.0, -1.0, -1.0])


@pytest.mark.parametrize("case", ["slice3d_slicenet", "slice3d_gtslice"])
def test_golden_preparation(golden, case):
    expected = answers(golden, case)
    rgba = centred(expected["input_rgba"])
    np.testing.assert_array_equal(network_image(rgba, 128, "black"), expected["img_input"])
    np.testing.assert_array_equal(network_image(rgba, 128, "white"), expected["img_input_white"])


@torch.inference_mode()
def check_field(network: SliceField, maps, expected: dict[str, np.ndarray]) -> None:
    points = camera_points(expected["queries"])
    agree(network.distance(maps, points[:, :200])[0], expected["sdf_pred"][:200])
    tables = network.tables(maps)
    agree(network.distance_by_tables(tables, points)[0], expected["sdf_pred"])
    side = len(expected["dense16"])
    axis = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)[::3, ::3, ::3]
    wanted = expected["dense16"][::3, ::3, ::3]
    dense = network.distance_by_tables(tables, camera_points(grid.reshape(-1, 3)))
    agree(-(dense.view(wanted.shape) + float(expected["fc_out_bias_shift"])), wanted)


def test_golden_regression(golden, tmp_path):
    expected = answers(golden, "slice3d_slicenet")
    network = load_regression(checkpoint(golden, "slice3d_slicenet", tmp_path))
    with torch.inference_mode():
        maps, slices = network.encode(torch.from_numpy(expected["img_input"])[None])
    agree(slices.reshape(expected["slices_rec"].shape), expected["slices_rec"])
    check_field(network, maps, expected)


def test_golden_slices_to_a_field(golden, tmp_path):
    expected = answers(golden, "slice3d_gtslice")
    network = load_field(checkpoint(golden, "slice3d_gtslice", tmp_path))
    slices = torch.from_numpy(expected["img_slices"].astype(np.float32))
    with torch.inference_mode():
        maps = network.encode(slices.view(1, 12, 3, *slices.shape[1:]))
    check_field(network, maps, expected)


@pytest.mark.parametrize("case", ["slice3d_slicenet", "slice3d_gtslice"])
def test_golden_mesh_of_a_dense_field(golden, case):
    expected = answers(golden, case)
    values = torch.from_numpy(expected["dense16"])
    inside = torch.zeros(tuple(side - 1 for side in values.shape), dtype=torch.bool)
    sparse = Sparse(values, inside, values.numel())
    vertices, faces = march(sparse, 0.5, method="lorensen", closed=True)
    same_mesh(vertices, faces, expected["dense16_vertices"], expected["dense16_faces"])


def sphere(side: int) -> Sparse:
    """The golden sphere on a grid of side^3 points, found from coarse to fine."""
    centre, radius = torch.tensor([0.1, 0.05, -0.1]), 0.3

    def field(index: torch.Tensor) -> torch.Tensor:
        place = torch.stack([index // side**2, index // side % side, index % side], dim=-1)
        return radius - (place / (side - 1) - 0.5 - centre).norm(dim=-1)

    return sample_distances(field, side, 1 / (side - 1), torch.device("cpu"))


def test_golden_mesh_of_a_sphere(golden):
    expected = answers(golden, "slice3d_slicenet")
    vertices, faces = march(sphere(33), 0.5, method="lorensen", closed=True)
    same_mesh(vertices, faces, expected["sphere_vertices"], expected["sphere_faces"])


def test_coarse_to_fine_asks_a_fifth_of_the_dense_grid_at_most():
    assert sphere(257).evaluated < 257**3 / 5


def same_mesh(vertices, faces, wanted_vertices, wanted_faces) -> None:
    assert len(faces) == len(wanted_faces)
    assert KDTree(vertices).query(wanted_vertices)[0].max() < 1e-3
    assert KDTree(wanted_vertices).query(vertices)[0].max() < 1e-3

    def volume(points: np.ndarray, corners: np.ndarray) -> float:
        a, b, c = (points[corners[:, i]].astype(float) for i in range(3))
        return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)

    # Ambiguous quadrilaterals may be split along the other diagonal.
    assert volume(vertices, faces) == pytest.approx(volume(wanted_vertices, wanted_faces), rel=0.01)


def test_golden_schedule(golden):
    expected = answers(golden, "slice3d_gen")
    agree(alphas_cumulated(), expected["alphas_cumprod"], 1e-6)
    schedule = Schedule.of(200)
    np.testing.assert_array_equal(schedule.steps, expected["ddim200_timesteps"])
    agree(schedule.alphas, expected["ddim200_alphas"], 1e-6)
    agree(schedule.sigmas, expected["ddim200_sigmas"], 1e-6)


def test_golden_sizes_of_the_latent_diffusion(golden):
    keys = json.loads((golden / "slice3d_gen" / "keys.json").read_text())
    with torch.device("meta"):
        model = SliceDiffusion()
    published = sum(
        int(np.prod(shape))
        for name, (shape, _) in keys.items()
        if name.startswith("model.diffusion_model.")
    )
    assert sum(p.numel() for p in model.unet.parameters()) == published


# Three gigabytes of weights and some minutes: `make test-large`.
@pytest.mark.large
def test_golden_latent_diffusion(golden, tmp_path):
    expected = answers(golden, "slice3d_gen")
    model = load_diffusion(checkpoint(golden, "slice3d_gen", tmp_path))
    view = torch.from_numpy(expected["view"]).permute(2, 0, 1)[None].float() / 127.5 - 1
    noises = torch.from_numpy(expected["noises"].astype(np.float32))
    start = torch.from_numpy(expected["x_T"].astype(np.float32))[None]
    with torch.inference_mode():
        posterior = model.first_stage.encode(view).latent_dist
        agree(posterior.mean[0], expected["view_moments"][:4], DIFFUSION_RTOL)
        latent, added = model.condition(view)
        agree(latent[0], expected["z_view_mode"], DIFFUSION_RTOL)
        for number, feature in enumerate(added, 1):
            agree(feature[0], expected[f"cond_f{number}"], DIFFUSION_RTOL)
        step = torch.tensor([481])
        agree(model.unet(start, step, latent, added)[0], expected["eps_ema_t481"], DIFFUSION_RTOL)
        grid = model.sample(
            (latent, added),
            Schedule.at(torch.arange(1, 1000, 1000 // len(noises))),  # as published
            lambda number: start if number < 0 else noises[number][None],
        )
        agree(grid[0], expected["ddim_latent"], DIFFUSION_RTOL)
        slices = model.decode(torch.from_numpy(expected["ddim_latent"])[None])
        decoded = expected["decoded_36"]
        agree(slices.reshape(decoded.shape), decoded, DIFFUSION_RTOL)
