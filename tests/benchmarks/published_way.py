"""The published way of casting an X-Ray, written anew from its description, as a baseline."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
import trimesh
from trimesh.ray.ray_pyembree import RayMeshIntersector

if TYPE_CHECKING:
    from xray_addon import Camera

LAYERS = 16


class Clock:
    """Seconds of processor time by stage; the least of the runs of each."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}

    def run(self, stage: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = work()
        seconds = time.process_time() - began
        self.stages[stage] = min(seconds, self.stages.get(stage, np.inf))
        return result

    @property
    def total(self) -> float:
        return sum(self.stages.values())


def rays(camera: Camera) -> np.ndarray:
    """Unit directions (H * W, 3) in the camera's frame."""
    row, column = np.divmod(np.arange(camera.width * camera.height), camera.width)
    return camera.ray_directions(row, column)


def published_xray(
    mesh: trimesh.Trimesh, face_colors: np.ndarray, camera: Camera, path: Path, runs: int = 3
) -> Clock:
    """`mesh` with colours (M, 3) seen by `camera`, to a file; what its stages took."""
    clock = Clock()
    direction = rays(camera)
    size = camera.width

    def hits() -> Any:
        seen = mesh.copy()
        seen.apply_transform(camera.world_to_camera)
        found = RayMeshIntersector(seen).intersects_location(
            np.zeros_like(direction), direction, multiple_hits=True
        )
        return seen.face_normals, found

    def pack() -> np.ndarray:
        frames = np.zeros((LAYERS, 7, size, size), np.float32)
        filled = np.zeros((size, size), int)
        for point, ray, face in zip(*found, strict=True):
            row, column = divmod(ray, size)
            layer = filled[row, column]
            if layer < LAYERS:
                frames[layer, 0, row, column] = np.linalg.norm(point)
                frames[layer, 1:4, row, column] = normals[face]
                frames[layer, 4:7, row, column] = face_colors[face]
                filled[row, column] += 1
        return frames

    def matrix_of() -> Any:
        return scipy.sparse.csr_matrix(frames.reshape(LAYERS, -1))

    def write() -> None:
        np.savez_compressed(
            path,
            data=matrix.data,
            indices=matrix.indices,
            indptr=matrix.indptr,
            shape=matrix.shape,
        )

    for _ in range(runs):
        normals, found = clock.run("tree and hits", hits)
        frames = clock.run("hits into layers, in Python", pack)
        matrix = clock.run("sparse matrix", matrix_of)
        clock.run("compress and write", write)
    return clock
