"""A tiny model and a folder of tiny meshes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from runtime.xray.training import TrainingConfig


@pytest.fixture
def config() -> TrainingConfig:
    """A model small enough to train in a test."""
    return TrainingConfig(
        layers=4,
        resolution=16,
        image_resolution=32,
        channels=(32, 32),
        blocks=(1, 1),
        batch=4,
        samples=40,
        warmup=0.2,
        workers=0,
    )


@pytest.fixture(scope="session")
def meshes(tmp_path_factory) -> Path:
    """Three coloured shapes as GLB files."""
    folder = tmp_path_factory.mktemp("meshes")
    shapes = {
        "ball": trimesh.creation.icosphere(2),
        "box": trimesh.creation.box((1, 0.6, 0.8)),
        "ring": trimesh.creation.torus(0.7, 0.3, 16, 8),
    }
    for number, (name, shape) in enumerate(shapes.items()):
        shape.visual.vertex_colors = np.eye(3)[number] * 200 + 30
        shape.export(folder / f"{name}.glb")
    return folder


@pytest.fixture(autouse=True)
def _few_threads():
    torch.set_num_threads(1)
