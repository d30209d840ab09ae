"""Meshes of distance fields from few values: as from all of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from runtime.meshes.extraction import TooIntricate, march, sample_distances

Field = Callable[[Tensor], Tensor]


def ball(centre: tuple[float, float, float], radius: float) -> Field:
    return lambda points: radius - (points - torch.tensor(centre)).norm(dim=-1)


def plate(thickness: float) -> Field:
    size = torch.tensor([0.3, 0.35, thickness / 2])

    def field(points: Tensor) -> Tensor:
        beyond = points.abs() - size
        outside = beyond.clamp(min=0).norm(dim=-1)
        return -(outside + beyond.amax(dim=-1).clamp(max=0))

    return field


def torus(points: Tensor) -> Tensor:
    ring = points[..., :2].norm(dim=-1) - 0.3
    return 0.07 - torch.stack([ring, points[..., 2]], dim=-1).norm(dim=-1)


def union(*fields: Field) -> Field:
    return lambda points: torch.stack([field(points) for field in fields]).amax(dim=0)


def on_grid(field: Field, side: int) -> Callable[[Tensor], Tensor]:
    def evaluate(index: Tensor) -> Tensor:
        place = torch.stack([index // side**2, index // side % side, index % side], dim=-1)
        return field(place / (side - 1) - 0.5)

    return evaluate


FIELDS = {
    "ball": ball((0.1, 0.05, -0.1), 0.3),
    "thin plate": plate(0.02),
    "torus": torus,
    "small ball beside a large one": union(ball((-0.2, 0, 0), 0.2), ball((0.3, 0.3, 0.3), 0.012)),
}


@pytest.mark.parametrize("side", [65, 100])
@pytest.mark.parametrize("name", FIELDS)
def test_few_values_give_the_mesh_of_all(name, side):
    evaluate = on_grid(FIELDS[name], side)
    dense = evaluate(torch.arange(side**3)).view(side, side, side)
    sparse = sample_distances(evaluate, side, 1 / (side - 1), torch.device("cpu"))
    assert torch.equal(sparse.values > 0, dense > 0)
    vertices, faces = march(sparse, 0.5, method="lorensen")
    sparse.values.copy_(dense)
    wanted_vertices, wanted_faces = march(sparse, 0.5, method="lorensen")
    np.testing.assert_array_equal(faces, wanted_faces)
    np.testing.assert_allclose(vertices, wanted_vertices, atol=1e-6)
    assert sparse.evaluated < side**3 / 2


def test_what_leaves_the_box_is_closed_along_its_border():
    evaluate = on_grid(ball((0.5, 0, 0), 0.3), 33)
    sparse = sample_distances(evaluate, 33, 1 / 32, torch.device("cpu"))
    vertices, faces = march(sparse, 0.5, closed=True)
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    assert vertices[:, 0].max() == pytest.approx(0.5, abs=1e-5)
    open_vertices, _ = march(sparse, 0.5)
    assert len(open_vertices) < len(vertices)


def test_noise_is_too_intricate():
    noise = torch.rand(65**3, generator=torch.Generator().manual_seed(0)) - 0.5
    with pytest.raises(TooIntricate):
        sample_distances(lambda index: noise[index], 65, 1 / 64, torch.device("cpu"), most=10_000)


def test_an_empty_field_gives_no_mesh():
    evaluate = on_grid(lambda points: -1 - points.norm(dim=-1), 33)
    sparse = sample_distances(evaluate, 33, 1 / 32, torch.device("cpu"))
    vertices, faces = march(sparse, 0.5, closed=True)
    assert len(vertices) == len(faces) == 0
