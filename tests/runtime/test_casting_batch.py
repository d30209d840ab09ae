"""Casting and shading in torch: as `cast` and `shade`, for a whole batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from runtime.meshes.collection import MeshCache, list_meshes
from runtime.training.batch_casting import MeshBank, cast_batch, shade_batch
from runtime.xray.batches import BatchDataset
from runtime.xray.data import CastDataset, Variety
from runtime.xray.training import train
from xray_addon import Surface, cast
from xray_addon.canonical import CANONICAL, place
from xray_addon.pictures.shading import Lights, shade
from xray_addon.surface import Material

LAYERS, SIZE = 4, 48


def textured() -> Surface:
    """Two crossed squares with a texture that repeats, faceted, with another material on one."""
    corners = np.array([[-1, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]], float)
    vertices = np.concatenate([corners, corners[:, [1, 0, 2]]])
    faces = [[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]]
    uv = np.array([[0, 0], [2.3, 0], [2.3, 1.6], [0, 1.6]])
    texture = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    return Surface(
        vertices,
        faces,
        corner_uvs=uv[np.array(faces) % 4],
        face_material=[0, 0, 1, 1],
        materials=[Material((0.9, 0.5, 0.7), texture), Material((0.2, 0.8, 0.4))],
    )


@pytest.fixture(scope="module")
def surfaces(meshes) -> list[Surface]:
    cache = MeshCache(list_meshes(meshes))
    return [*(cache.surface(number) for number in range(3)), textured()]


@pytest.fixture(scope="module")
def views(surfaces):
    """Of each object two: number, matrix into the frame, camera."""
    random = np.random.default_rng(0)
    found = []
    for number, surface in enumerate(surfaces):
        for elevation, times in ((0.2, 1.0), (0.6, 3.0)):
            frame = CANONICAL.from_afar(times)
            matrix, _ = place(surface, random.uniform(0, 6), elevation, frame=frame)
            found.append((number, matrix, frame.camera(SIZE, elevation)))
    return found


def batch(surfaces, views):
    matrices = [camera.world_to_camera @ matrix for _, matrix, camera in views]
    return cast_batch(
        MeshBank(surfaces),
        torch.tensor([number for number, _, _ in views]),
        torch.from_numpy(np.stack(matrices)),
        fov_x=fields_of_view(views),
        size=SIZE,
        layers=LAYERS,
    )


def fields_of_view(views) -> torch.Tensor:
    return torch.tensor([camera.fov_x for _, _, camera in views])


def test_the_hits_are_those_of_cast(surfaces, views):
    layers = batch(surfaces, views)
    for number, (which, matrix, camera) in enumerate(views):
        moved = surfaces[which].transformed(matrix)
        wanted = cast(moved, camera, LAYERS, backend="numpy")
        got = layers.depth[number].numpy()
        assert wanted.hit.sum() > 300
        # A vertex that rounds another way moves 1.5e-5 px.
        assert ((got > 0) != wanted.hit).sum() <= 1
        both = (got > 0) & wanted.hit
        np.testing.assert_allclose(got[both], wanted.depth[both], atol=1e-5)
        np.testing.assert_allclose(
            layers.normal[number].numpy()[both], wanted.normal[both], atol=1e-4
        )
        np.testing.assert_allclose(
            layers.color[number].numpy()[both], wanted.color[both], atol=1e-4
        )


def test_the_light_is_that_of_shade(surfaces, views):
    layers = batch(surfaces, views)
    cameras = [camera for _, _, camera in views]
    lights = [Lights.random(camera, np.random.default_rng(7)) for camera in cameras]

    def tensor(values) -> torch.Tensor:
        return torch.tensor(np.array(values), dtype=torch.float32)

    got = shade_batch(
        layers,
        tensor([light.up for light in lights]),
        tensor([light.sky for light in lights]),
        tensor([light.ground for light in lights]),
        tensor([light.directions[0] * light.strengths[0] for light in lights]),
        fov_x=fields_of_view(views),
    )
    for number, (which, matrix, _) in enumerate(views):
        xray = cast(surfaces[which].transformed(matrix), cameras[number], 1, backend="numpy")
        wanted = np.moveaxis(shade(xray, cameras[number], lights[number]), -1, 0)
        error = np.abs(got[number].numpy() - wanted)
        assert (error.max(axis=0) > 2e-3).sum() <= 1


def test_objects_behind_the_camera_are_refused(surfaces):
    with pytest.raises(ValueError, match="behind"):
        cast_batch(
            MeshBank(surfaces),
            torch.tensor([0]),
            torch.eye(4, dtype=torch.float64)[None],
            fov_x=torch.tensor([1.0]),
            size=8,
            layers=1,
        )


def test_batches_are_those_of_the_loaders_workers(meshes):
    shape = {"seed": 3, "layers": LAYERS, "resolution": 24, "image_resolution": 32, "batch": 8}
    shape |= {"variety": Variety(0.5, roll=0.1, stretch=0.4, pairs=16, farthest=4.0)}
    files = list_meshes(meshes)
    wanted = iter(DataLoader(CastDataset(files, first_batch=1, **shape), batch_size=8))
    got = iter(DataLoader(BatchDataset(files, first_batch=1, **shape), batch_size=None))
    for _ in range(2):
        one, other = next(wanted), next(got)
        assert one.keys() == other.keys()
        torch.testing.assert_close(other["pose"], one["pose"])
        assert (one["pose"][:, 1] != 0).all()
        for name in ("image", "frames"):
            assert other[name].shape == one[name].shape
            assert other[name].dtype == one[name].dtype
            # Where a vertex rounds another way, a pixel of a rim is another.
            assert ((other[name] - one[name]).abs() > 3e-3).float().mean() < 1e-3


def test_it_trains_on_them(config, meshes, tmp_path: Path):
    trainer = train(replace(config, cast="device", samples=8), meshes, tmp_path)
    assert trainer.samples == 8


def test_where_to_cast_is_checked(config):
    with pytest.raises(ValueError, match="cast must be"):
        replace(config, cast="moon")
