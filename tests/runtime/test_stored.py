"""Stored datasets as training data."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from runtime.meshes.collection import MeshCache, list_meshes
from runtime.training.datasets import XRayDataset
from runtime.training.framing import canonical_frame
from runtime.training.views import to_frames
from runtime.xray.stored import StoredDataset, stored_places
from runtime.xray.training import train
from xray_addon import Camera, Surface, XRayError, cast
from xray_addon.canonical import FOV_X, canonical_camera, place
from xray_addon.files.transforms import write_transforms
from xray_addon.pictures.shading import Lights, shade_surface


def view(azimuth: float, elevation: float, distance: float, fov: float, target) -> Camera:
    """A camera around the origin, which looks at a point beside it."""
    away = np.array(
        [
            math.cos(elevation) * math.sin(azimuth),
            -math.cos(elevation) * math.cos(azimuth),
            math.sin(elevation),
        ]
    )
    return Camera.look_at(away * distance, target, math.radians(fov), 256, 256)


def unit(surface: Surface) -> Surface:
    """In the middle of the world, its longest side 1."""
    low, high = surface.bounds
    matrix = np.diag([1.0, 1, 1, (high - low).max()])
    matrix[:3, 3] = -(low + high) / 2
    return surface.transformed(matrix / matrix[3, 3])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, meshes: Path) -> Path:
    """Three objects from two sides each, in the published layout."""
    folder = tmp_path_factory.mktemp("stored") / "dataset"
    cache = MeshCache(list_meshes(meshes))
    for number in range(3):
        surface = unit(cache.surface(number))
        cameras = [view(number + side, 0.4, 2.2, 40, (0.05, 0, 0)) for side in range(2)]
        names = ["000", "001"]
        for name, camera in zip(names, cameras, strict=True):
            image = folder / "images" / str(number) / f"{name}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            cast(surface, camera.resized(64, 64), 6).save(
                folder / "xrays" / str(number) / f"{name}.npz"
            )
            pixels = shade_surface(surface, camera, Lights.even(camera))
            Image.fromarray(pixels).save(image)
        write_transforms(image.with_name("transforms.json"), cameras, names)
    return folder


@pytest.mark.parametrize(("distance", "fov"), [(1.5, 49.13), (2.4, 35), (3.0, 28)])
def test_a_view_comes_into_the_frame_in_which_meshes_are_cast(meshes, distance, fov):
    surface = unit(MeshCache(list_meshes(meshes)).surface(1))  # the box
    camera = view(0.6, 0.5, distance, fov, (0.08, 0.0, 0.05))
    xray = cast(surface, camera, 4)
    frame = canonical_frame(xray, camera)
    assert frame is not None
    assert frame.elevation == pytest.approx(0.5, abs=0.08)
    # A camera from afar shows as much of the object as the canonical one does.
    afar = distance * math.tan(frame.fov_x / 2)
    assert afar == pytest.approx(1.5 * math.tan(FOV_X / 2), rel=0.3)
    got = frame.resample(xray, 4, 64)
    matrix, _ = place(surface, 0.6, frame.elevation)
    wanted = cast(surface.transformed(matrix), canonical_camera(64, frame.elevation), 4)
    assert (got.hit & wanted.hit).sum() > 0.8 * (got.hit | wanted.hit).sum()
    both = got.hit & wanted.hit
    assert np.abs(got.depth - wanted.depth)[both].mean() < 0.06
    facing = (got.normal * wanted.normal).sum(axis=-1)[both]
    assert np.median(facing) > 0.97


def test_image_and_frames_of_a_stored_view_agree(dataset):
    stored = StoredDataset(
        XRayDataset(dataset), seed=0, layers=4, resolution=32, image_resolution=64, batch=2
    )
    samples = iter(stored)
    for _ in range(12):
        item = next(samples)
        alpha = torch.nn.functional.avg_pool2d(item["image"][3:], 2)[0]
        hit = item["frames"][0, 7] > 0
        assert ((alpha > 0.5) == hit).float().mean() > 0.95
        assert item["image"].min() >= 0
        assert item["image"].max() <= 1


def test_each_view_comes_once_an_epoch(dataset):
    stored = StoredDataset(
        XRayDataset(dataset), seed=0, layers=2, resolution=16, image_resolution=32, batch=2
    )
    for epoch in range(2):
        frames = [next(stored.pair(6 * epoch + number))["frames"] for number in range(6)]
        assert all(not torch.equal(a, b) for i, a in enumerate(frames) for b in frames[:i])


def test_a_run_learns_from_a_dataset(config, dataset, tmp_path):
    assert stored_places(dataset) == [dataset]
    assert train(replace(config, samples=8), dataset, tmp_path).samples == 8


def test_places_are_told_from_meshes(meshes, tmp_path):
    assert stored_places(meshes) == []
    (tmp_path / "b-0001.tar").touch()
    (tmp_path / "a-0000.tar").touch()
    assert [path.name for path in stored_places(tmp_path)] == ["a-0000.tar", "b-0001.tar"]
    assert stored_places(tmp_path / "a-0000.tar") == [tmp_path / "a-0000.tar"]


def test_settings_for_meshes_are_refused(config, dataset, tmp_path):
    with pytest.raises(XRayError, match="have no effect"):
        train(replace(config, roll=2.0), dataset, tmp_path / "run")


def test_views_that_cannot_teach_are_errors(dataset, tmp_path):
    surface = Surface([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]])
    camera = view(0, 0.5, 3, 40, (9, 9, 9))  # looks past it
    xray = cast(surface, camera, 2)
    assert canonical_frame(xray, camera) is None
    xray.save(tmp_path / "xrays/0/000.npz")
    bare = StoredDataset(
        XRayDataset(tmp_path), seed=0, layers=2, resolution=16, image_resolution=32, batch=2
    )
    with pytest.raises(XRayError) as caught:
        next(iter(bare))
    assert caught.value.code == "bad_transforms"


def test_frames_of_fewer_layers_are_filled_up(meshes):
    surface = unit(MeshCache(list_meshes(meshes)).surface(0))
    camera = view(0, 0.3, 2, 40, (0, 0, 0))
    xray = cast(surface, camera, 2)
    frame = canonical_frame(xray, camera)
    frames = to_frames(frame.resample(xray, 5, 32))
    assert frames.shape == (5, 8, 32, 32)
    assert (frames[2:, 7] == -1).all()
