"""`cast` beside Open3D and beside the published way, as ratios from one run.

OMP_NUM_THREADS=1 python tests/benchmarks/cast.py [FOLDER of .glb]   (needs open3d; run by hand)

The published way is trimesh with Embree and a Python loop over the hits. Each is given the mesh
once and timed from rays to layers of depth and normal, the best of several runs; building the
acceleration structures counts, as a dataset sees each mesh from few sides.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open3d
import trimesh
from trimesh.ray.ray_pyembree import RayMeshIntersector

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from xray_addon import Camera, Surface, cast  # noqa: E402

SIZE, LAYERS, RUNS = 256, 16, 5


def rays(camera: Camera) -> tuple[Any, Any]:
    """Origins and directions (SIZE * SIZE, 3) in world space."""
    row, column = np.divmod(np.arange(SIZE * SIZE), SIZE)
    direction = camera.ray_directions(row, column) @ camera.camera_to_world[:3, :3].T
    return np.broadcast_to(camera.position, direction.shape), direction


def by_open3d(mesh: trimesh.Trimesh, camera: Camera) -> int:
    """Open3D's list of intersections, sorted into layers."""
    scene = open3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
    origin, direction = rays(camera)
    answer = scene.list_intersections(
        np.concatenate([origin, direction], axis=1).astype(np.float32), nthreads=1
    )
    pixel, depth = answer["ray_ids"].numpy(), answer["t_hit"].numpy()
    order = np.lexsort((depth, pixel))
    pixel, depth = pixel[order], depth[order]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(pixel)) + 1])
    rank = np.arange(len(pixel)) - np.repeat(starts, np.diff(np.append(starts, len(pixel))))
    keep = rank < LAYERS
    frames = np.zeros((LAYERS, SIZE * SIZE, 4), np.float32)
    faces = answer["primitive_ids"].numpy()[order]
    frames[rank[keep], pixel[keep], 0] = depth[keep]
    frames[rank[keep], pixel[keep], 1:] = mesh.face_normals[faces[keep]]
    return int((frames[..., 0] > 0).sum())


def published_way(mesh: trimesh.Trimesh, camera: Camera) -> int:
    """trimesh's Embree, then each hit put into its layer by itself."""
    origin, direction = rays(camera)
    points, pixel, face = RayMeshIntersector(mesh).intersects_location(
        origin, direction, multiple_hits=True
    )
    frames = np.zeros((LAYERS, SIZE * SIZE, 4), np.float32)
    filled = np.zeros(SIZE * SIZE, int)
    for point, at, number in zip(points, pixel, face, strict=True):
        if filled[at] < LAYERS:
            frames[filled[at], at, 0] = np.linalg.norm(point - camera.position)
            frames[filled[at], at, 1:] = mesh.face_normals[number]
            filled[at] += 1
    return int((frames[..., 0] > 0).sum())


def by_cast(mesh: trimesh.Trimesh, camera: Camera) -> int:
    """This project's."""
    return len(cast(Surface(mesh.vertices, mesh.faces), camera, LAYERS).index)


def best(
    work: Callable[[trimesh.Trimesh, Camera], int],
    mesh: trimesh.Trimesh,
    camera: Camera,
    runs: int = RUNS,
) -> tuple[float, int]:
    """Least seconds of `runs`, and the number of hits."""
    seconds, hits = np.inf, 0
    for _ in range(runs):
        began = time.perf_counter()
        hits = work(mesh, camera)
        seconds = min(seconds, time.perf_counter() - began)
    return seconds, hits


def main() -> None:
    """Print a table."""
    if os.environ.get("OMP_NUM_THREADS") != "1":
        sys.exit("Set OMP_NUM_THREADS=1: the comparison is on one core.")
    parser = argparse.ArgumentParser(description=__doc__)
    shared = Path(os.environ.get("XRAY_ASSETS", ROOT.parent / "shared" / "assets"))
    parser.add_argument("folder", nargs="?", type=Path, default=shared / "bench" / "gso_geometry")
    parser.add_argument("--limit", type=int, default=6)
    arguments = parser.parse_args()
    print("| mesh | triangles | hits | cast ms | Open3D / cast | published way / cast |")
    print("|---|---|---|---|---|---|")
    ratios = []
    paths = sorted(arguments.folder.rglob("*.glb"))
    for path in paths[:: max(1, len(paths) // arguments.limit)][: arguments.limit]:
        mesh = trimesh.load_scene(path).to_geometry()
        surface = Surface(mesh.vertices, mesh.faces).normalized()
        mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
        _ = mesh.face_normals
        camera = Camera.look_at((0.9, -0.9, 0.6), width=SIZE, height=SIZE)
        ours, hits = best(by_cast, mesh, camera)
        theirs, _ = best(by_open3d, mesh, camera)
        published, _ = best(published_way, mesh, camera, 2)
        ratios.append((theirs / ours, published / ours))
        print(
            f"| {path.stem} | {len(mesh.faces)} | {hits} | {ours * 1e3:.1f} "
            f"| {theirs / ours:.2f} | {published / ours:.1f} |",
            flush=True,
        )
    middle = np.median(ratios, axis=0)
    print(f"| median | | | | {middle[0]:.2f} | {middle[1]:.1f} |")


if __name__ == "__main__":
    main()
