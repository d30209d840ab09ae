"""What a mesh loses on its way to an omage and back. Writes docs/omages-round-trip.md.

Run by hand, in the runtime's environment, on one thread; the meshes are in XRAY_ASSETS:

    OMP_NUM_THREADS=1 python tests/benchmarks/omages.py [--count 20]

Distances are from 20,000 points of one surface to the nearest point of the other, not to points of
it, with a longest side of 1. The colour error is the mean difference of sRGB values, 0 to 255,
between those points of the mesh and the nearest of the omage's. An omage is encoded at 1024 px and
made smaller with borders snapped, as published.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from runtime.meshes.files import read_mesh  # noqa: E402
from runtime.meshes.unwrapping import unwrap_surface  # noqa: E402
from xray_addon.casting import surface_colors  # noqa: E402
from xray_addon.omage import Omage  # noqa: E402
from xray_addon.omage.encoding import EXTENT, unusable  # noqa: E402
from xray_addon.surface import Surface  # noqa: E402

RESOLUTIONS = (64, 128, 256, 512, 1024)
POINTS, THRESHOLD = 20_000, 0.01
CANDIDATES = 200_000  # points that tell which faces are near
KINDS = ("textured", "without UVs", "scan")


class Nearest:
    """Distances from points to a surface."""

    def __init__(self, surface: Surface) -> None:
        self.surface = surface
        corners = surface.vertices[surface.faces].astype(np.float64)
        area = np.linalg.norm(
            np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
        )
        self.corners = corners[area > 0]
        self.face = np.flatnonzero(area > 0)
        if len(self.face) > CANDIDATES:  # faces are smaller than the distance of the points
            self.owner = np.arange(len(self.face))
            points = self.corners.mean(axis=1)
        else:
            random = np.random.default_rng(0)
            area = area[area > 0]
            self.owner = random.choice(len(area), CANDIDATES, p=area / area.sum())
            weights = random.dirichlet((1, 1, 1), CANDIDATES)
            points = np.einsum("nk,nkc->nc", weights, self.corners[self.owner])
        self.tree = cKDTree(points)

    def __call__(
        self, points: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
        """Distance (N,), face (N,) and weights (N, 3) of the nearest point."""
        _, near = self.tree.query(points, k=6)
        best = np.full(len(points), np.inf)
        face, place = np.zeros(len(points), np.int64), np.zeros_like(points)
        for number in self.owner[near].T:
            closest = trimesh.triangles.closest_point(self.corners[number], points)
            distance = np.linalg.norm(closest - points, axis=1)
            nearer = distance < best
            best[nearer], face[nearer], place[nearer] = (
                distance[nearer],
                number[nearer],
                closest[nearer],
            )
        weights = trimesh.triangles.points_to_barycentric(self.corners[face], place)
        return best, self.face[face], np.nan_to_num(np.clip(weights, 0, 1))


@dataclass
class Row:
    """What was measured on one mesh; by resolution where that matters."""

    name: str
    kind: str
    charts: int
    dropped: float
    used: float
    unwrapped: str
    seconds: float
    chamfer: list[float]
    score: list[float]
    color: list[float]
    watertight: list[bool]


def measured(name: str, kind: str, surface: Surface) -> Row:
    """The round trip of one mesh."""
    surface = surface.normalized()
    reason = unusable(surface)
    uvs = unwrap_surface(surface) if reason else None
    began = time.process_time()
    omage, report = Omage.encoded(surface, 1024, unwrap=None if uvs is None else lambda _: uvs)
    seconds = time.process_time() - began
    row = Row(
        name, kind, report.charts, report.dropped_area, report.used, reason, seconds, [], [], [], []
    )
    nearest = Nearest(surface)
    points, face, weights = sampled(surface, seed=1)
    colors = surface_colors(surface, face, weights)
    for resolution in RESOLUTIONS:
        small = omage.resized(resolution)
        decoded = small.decode()
        decoded.vertices = decoded.vertices / EXTENT
        there, back = nearest(sampled(decoded, seed=2)[0])[0], Nearest(decoded)(points)
        precision, recall = (there < THRESHOLD).mean(), (back[0] < THRESHOLD).mean()
        row.chamfer.append(float(there.mean() + back[0].mean()) / 2)
        row.score.append(float(2 * precision * recall / (precision + recall)))
        shown = surface_colors(decoded, back[1], back[2])
        row.color.append(float(np.abs(shown - colors).mean() * 255))
        row.watertight.append(small.decode(stitch=True).is_watertight)
    return row


def sampled(
    surface: Surface, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Points (N, 3) spread evenly, their faces (N,) and weights (N, 3)."""
    random = np.random.default_rng(seed)
    corners = surface.vertices[surface.faces].astype(np.float64)
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    face = random.choice(len(area), POINTS, p=area / area.sum())
    weights = random.dirichlet((1, 1, 1), POINTS)
    return np.einsum("nk,nkc->nc", weights, corners[face]), face, weights


def default_assets() -> Path:
    """Where the meshes are."""
    return Path(os.environ.get("XRAY_ASSETS", ROOT.parent / "shared" / "assets"))


def meshes(assets: Path, count: int) -> Iterator[tuple[str, str, Surface]]:
    """`count` meshes of each kind, spread over the assets."""
    training = sorted((assets / "train").glob("*/*.glb"))
    for kind, paths in (
        ("textured", training),
        ("without UVs", training),
        ("scan", sorted((assets / "bench").glob("*/*.glb"))),
    ):
        found = 0
        # A stride without common factors visits every pack before it comes back to one.
        for number in range(len(paths)):
            path = paths[number * 97 % len(paths)] if len(paths) % 97 else paths[number]
            if found == count:
                break
            surface = read_mesh(path)
            has_uvs = surface.corner_uvs is not None and bool(np.ptp(surface.corner_uvs) > 0)
            has_texture = any(material.texture is not None for material in surface.materials)
            if kind == "scan" or (kind == "textured") == (has_texture and has_uvs):
                if kind == "without UVs" and has_uvs:
                    continue
                found += 1
                yield path.stem, kind, surface


def table(rows: Sequence[Row]) -> str:
    """The page."""
    lines = [
        "# Round trip of omages",
        "",
        "Written by `python tests/benchmarks/omages.py`; do not edit. One thread, processor time "
        f"of encoding at 1024 px without unwrapping; {platform.machine()}, Python "
        f"{platform.python_version()}, numpy {np.__version__}. The script says what is measured.",
        "",
        "| | CD 64 | 128 | 256 | 512 | 1024 | F@0.01 64 | 128 | 256 | 512 | 1024 | "
        "colour 64 | 256 | 1024 | stitched watertight at 64, 256, 1024 | area dropped | "
        "pixels used | s |",
        "| --- |" + " --- |" * 17,
    ]
    groups = [(kind, [row for row in rows if row.kind == kind]) for kind in KINDS]
    whole = [row for row in rows if row.dropped < 1e-9]
    for name, group in (*groups, ("all", rows), ("all of which nothing is dropped", whole)):
        if group:
            lines.append(f"| **{name}, {len(group)}** | " + " | ".join(_means(group)) + " |")
            lines.append("| worst | " + " | ".join(_worst(group)) + " |")
    lines += [
        "",
        "## Each mesh",
        "",
        "| mesh | kind | charts | area dropped | pixels used | s | CD 64 | CD 1024 | F 64 | F 1024 "
        "| colour 1024 | unwrapped because |",
        "| --- |" + " --- |" * 11,
    ]
    for row in rows:
        lines.append(
            f"| {row.name} | {row.kind} | {row.charts} | {row.dropped:.2%} | {row.used:.0%} | "
            f"{row.seconds:.2f} | {row.chamfer[0]:.5f} | {row.chamfer[-1]:.5f} | "
            f"{row.score[0]:.4f} | {row.score[-1]:.4f} | {row.color[-1]:.1f} | {row.unwrapped} |"
        )
    return "\n".join(lines) + "\n"


def _means(rows: Sequence[Row]) -> list[str]:
    chamfer, score, color, tight = (
        np.mean([getattr(row, name) for row in rows], axis=0)
        for name in ("chamfer", "score", "color", "watertight")
    )
    return [
        *(f"{value:.5f}" for value in chamfer),
        *(f"{value:.4f}" for value in score),
        *(f"{color[n]:.1f}" for n in (0, 2, 4)),
        ", ".join(f"{tight[n]:.0%}" for n in (0, 2, 4)),
        f"{np.mean([row.dropped for row in rows]):.2%}",
        f"{np.mean([row.used for row in rows]):.0%}",
        f"{np.mean([row.seconds for row in rows]):.2f}",
    ]


def _worst(rows: Sequence[Row]) -> list[str]:
    chamfer = np.max([row.chamfer for row in rows], axis=0)
    score = np.min([row.score for row in rows], axis=0)
    color = np.max([row.color for row in rows], axis=0)
    return [
        *(f"{value:.5f}" for value in chamfer),
        *(f"{value:.4f}" for value in score),
        *(f"{color[n]:.1f}" for n in (0, 2, 4)),
        "",
        f"{max(row.dropped for row in rows):.2%}",
        f"{min(row.used for row in rows):.0%}",
        f"{max(row.seconds for row in rows):.2f}",
    ]


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=default_assets())
    parser.add_argument("--count", type=int, default=20, help="meshes of each kind")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "omages-round-trip.md")
    arguments = parser.parse_args()
    rows = []
    for name, kind, surface in meshes(arguments.assets, arguments.count):
        row = measured(name, kind, surface)
        rows.append(row)
        print(
            f"{name[:32]:32} {kind:12} CD {row.chamfer[0]:.5f} {row.chamfer[-1]:.5f} "
            f"F {row.score[0]:.4f} {row.score[-1]:.4f} {row.seconds:.2f} s",
            flush=True,
        )
    arguments.out.write_text(table(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
