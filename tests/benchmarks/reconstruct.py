"""How near and how fast `reconstruct` is, beside Open3D's screened Poisson on the same points.

Run by hand, in an environment that also has open3d, trimesh and scipy (none of them is a
dependency of the project), on one thread:

    OMP_NUM_THREADS=1 python tests/benchmarks/reconstruct.py [--every 5] [--assets DIR]

Each scan gets one perfect 256x256x16 X-Ray from a random direction at 1.6 of its size. `CD` and
`F` (at 0.01) compare 10,000 samples a side, `floor` two such samples of the scan itself.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import open3d
import trimesh
from scipy.spatial import cKDTree

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from xray_addon.camera import Camera  # noqa: E402
from xray_addon.casting import cast  # noqa: E402
from xray_addon.reconstruction import reconstruct  # noqa: E402
from xray_addon.surface import Surface  # noqa: E402

SAMPLES = 10_000
THRESHOLD = 0.01
POISSON_DEPTH = 8


def read(path: Path) -> Surface:
    """The scan with its seams merged, so that `is_watertight` tells about its shape."""
    mesh = trimesh.load(path, force="scene").to_geometry()
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    return Surface(np.asarray(mesh.vertices), np.asarray(mesh.faces)).normalized()


def poisson(positions, normals) -> Surface:
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(positions))
    cloud.normals = open3d.utility.Vector3dVector(normals)
    mesh, _ = open3d.geometry.TriangleMesh.create_from_point_cloud_poisson(
        cloud, depth=POISSON_DEPTH, n_threads=1
    )
    return Surface(np.asarray(mesh.vertices), np.asarray(mesh.triangles))


def compare(a, b) -> tuple[float, float]:
    """Chamfer distance and F-score, as `xray_addon.metrics` defines them, by k-d tree."""
    there, back = cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]
    precision, recall = (there < THRESHOLD).mean(), (back < THRESHOLD).mean()
    return (there.mean() + back.mean()) / 2, 2 * precision * recall / max(precision + recall, 1e-9)


def timed(work, *arguments, repeat: int):
    """The result and the least time in seconds."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        result = work(*arguments)
        times.append(time.perf_counter() - start)
    return result, min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("XRAY_ASSETS", ROOT.parent / "shared" / "assets"))
    parser.add_argument("--assets", type=Path, default=default)
    parser.add_argument("--every", type=int, default=5, help="take each n-th scan")
    arguments = parser.parse_args()

    rows = []
    print(f"{'scan':32}{'hits':>7} {'closed':>7} | {'reconstruct':^25} | {'Poisson':^25} | floor")
    for number, path in enumerate(
        sorted((arguments.assets / "bench").glob("**/*.glb"))[:: arguments.every]
    ):
        scan = read(path)
        random = np.random.default_rng(number)
        eye = random.normal(size=3) * (1, 1, 0.6)
        camera = Camera.look_at(1.6 * eye / np.linalg.norm(eye))
        xray = cast(scan, camera, 16)
        points = xray.points(camera)
        oriented = points.positions.astype(float), points.normals.astype(float)
        ours, our_time = timed(reconstruct, xray, camera, repeat=3)
        theirs, their_time = timed(poisson, *oriented, repeat=1)
        truth = scan.sample(SAMPLES, seed=1)
        floor = compare(scan.sample(SAMPLES, seed=2), truth)
        row = [scan.is_watertight]
        text = f"{path.stem[:31]:32}{len(points):7d} {scan.is_watertight!s:>7}"
        for mesh, seconds in ((ours, our_time), (theirs, their_time)):
            distance, score = compare(mesh.sample(SAMPLES, seed=3), truth)
            row += [distance, score, seconds, mesh.is_watertight]
            tight = "tight" if mesh.is_watertight else "open"
            text += f" | {distance:.5f} {score:.4f} {seconds:5.2f}s {tight:>5}"
        rows.append([*row, *floor])
        print(f"{text} | {floor[0]:.5f} {floor[1]:.4f}", flush=True)

    mean = np.mean(rows, axis=0)
    print(f"\nmean of {len(rows)} scans, {mean[0] * len(rows):.0f} of them watertight")
    for name, (distance, score, seconds, tight) in (
        ("reconstruct", mean[1:5]),
        ("Poisson", mean[5:9]),
    ):
        print(
            f"{name:12} CD {distance:.5f}  F {score:.4f}  {seconds:.3f} s  watertight {tight:.0%}"
        )
    print(f"{'floor':12} CD {mean[9]:.5f}  F {mean[10]:.4f}")
    print(f"reconstruct is {mean[7] / mean[3]:.1f} times as fast as Poisson")


if __name__ == "__main__":
    main()
