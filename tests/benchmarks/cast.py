"""What casting and writing a view cost, beside Open3D and beside the published way, in one run.

OMP_NUM_THREADS=1 python tests/benchmarks/cast.py      (make benchmark; needs the scans, see below)

Writes docs/benchmarks.md and docs/casting.png. All times are processor time of one thread, the
least of several runs, so that other work on the machine counts little. The published way is trimesh
with Embree, a Python loop over the hits, a SciPy matrix and `np.savez_compressed`; its mesh is
moved into the camera's frame, so that each view builds a tree. Open3D builds one a view too.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import open3d
import trimesh
from published_way import LAYERS, Clock, published_xray, rays

mpl.use("agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from xray_addon import Camera, Material, Surface, cast, casting  # noqa: E402
from xray_addon.casting.scene import Scene  # noqa: E402
from xray_addon.files.xray_file import StoredHits, encode  # noqa: E402
from xray_addon.xray import XRay  # noqa: E402

SIZE = 256
TRIANGLES = (1_000, 10_000, 100_000, 1_000_000, 5_000_000)
PIXELS = (64, 128, 256, 512, 1024)
BACKENDS = ("numpy", "numba")
NAMES = {"numpy": "cast, NumPy", "numba": "cast, numba"}


@dataclass
class Subject:
    """A mesh to cast, as this project and as trimesh hold it."""

    name: str
    surface: Surface
    mesh: trimesh.Trimesh
    face_colors: np.ndarray  # (M, 3), all that the published way knows of colour


def stored(xray: XRay) -> StoredHits:
    """What of an X-Ray goes into its file."""
    return StoredHits(xray.shape, xray.index, xray.hit_depth, xray.hit_normal, xray.hit_color)


def subject(name: str, surface: Surface, face_colors: np.ndarray | None = None) -> Subject:
    surface = surface.normalized()
    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    if face_colors is None:
        face_colors = np.full((len(mesh.faces), 3), 0.8)
    return Subject(name, surface, mesh, face_colors)


def scan(path: Path) -> Subject:
    """A scan with its texture, where it has one."""
    mesh = trimesh.load_scene(path).to_geometry()
    visual: Any = mesh.visual
    texture = getattr(getattr(visual, "material", None), "baseColorTexture", None)
    if texture is None or getattr(visual, "uv", None) is None:
        return subject(path.stem, Surface(mesh.vertices, mesh.faces))
    material = Material(texture=np.array(texture.convert("RGB")))
    uvs = np.asarray(visual.uv)[mesh.faces]
    surface = Surface(mesh.vertices, mesh.faces, corner_uvs=uvs, materials=[material])
    face_colors = visual.to_color().vertex_colors[mesh.faces].mean(axis=1)[:, :3] / 255
    return subject(f"{path.stem} (textured)", surface, face_colors)


def torus(triangles: int) -> Subject:
    """A bumpy torus of about so many triangles, in an order that a scanner would not give."""
    around = max(int(np.sqrt(triangles)), 8)
    along = max(triangles // (2 * around), 4)
    u, v = np.meshgrid(
        np.linspace(0, 2 * np.pi, around, endpoint=False),
        np.linspace(0, 2 * np.pi, along, endpoint=False),
        indexing="ij",
    )
    tube = 0.3 + 0.03 * np.sin(9 * u) * np.sin(5 * v)
    ring = 0.7 + tube * np.cos(v)
    vertices = np.stack([ring * np.cos(u), ring * np.sin(u), tube * np.sin(v)], -1).reshape(-1, 3)
    i, j = (a.reshape(-1) for a in np.indices((around, along)))
    a, b = i * along + j, (i + 1) % around * along + j
    c, d = (i + 1) % around * along + (j + 1) % along, i * along + (j + 1) % along
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return subject(f"torus {len(faces):,}", Surface(vertices, faces))


def view(size: int = SIZE) -> Camera:
    return Camera.look_at((0.9, -0.9, 0.6), width=size, height=size)


def by_open3d(item: Subject, camera: Camera) -> float:
    """Seconds of Open3D's list of intersections, sorted into layers of depth and normal."""
    clock = Clock()
    rotation, size = camera.camera_to_world[:3, :3], camera.width
    direction = rays(camera) @ rotation.T
    origin = np.broadcast_to(camera.position, direction.shape)
    normals = item.mesh.face_normals

    def work() -> None:
        scene = open3d.t.geometry.RaycastingScene(nthreads=1)
        scene.add_triangles(
            item.surface.vertices.astype(np.float32), item.surface.faces.astype(np.uint32)
        )
        answer = scene.list_intersections(
            np.concatenate([origin, direction], axis=1).astype(np.float32), nthreads=1
        )
        pixel, depth = answer["ray_ids"].numpy(), answer["t_hit"].numpy()
        order = np.lexsort((depth, pixel))
        pixel, depth = pixel[order], depth[order]
        starts = np.concatenate([[0], np.flatnonzero(np.diff(pixel)) + 1])
        rank = np.arange(len(pixel)) - np.repeat(starts, np.diff(np.append(starts, len(pixel))))
        keep = rank < LAYERS
        frames = np.zeros((LAYERS, size * size, 4), np.float32)
        faces = answer["primitive_ids"].numpy()[order]
        frames[rank[keep], pixel[keep], 0] = depth[keep]
        frames[rank[keep], pixel[keep], 1:] = normals[faces[keep]]

    for _ in range(3):
        clock.run("all", work)
    return clock.total


def by_cast(item: Subject, camera: Camera, backend: str, runs: int = 5) -> float:
    """Seconds of this project's."""
    clock = Clock()
    for _ in range(runs):
        clock.run("all", lambda: cast(item.surface, camera, LAYERS, backend=backend))
    return clock.total


def written(item: Subject, camera: Camera, backend: str, path: Path) -> Clock:
    """A view cast and written by this project, by stage."""
    clock = Clock()
    kernel = casting._kernel(backend)
    pixels = camera.width * camera.height

    def once() -> None:
        scene = clock.run(
            "vertices before the camera", lambda: Scene.of(item.surface, camera, kernel.moved)
        )
        parts = clock.run("hits", lambda: list(kernel.hits(scene)))
        found = casting._joined(parts)
        clock.run("hits into layers", lambda: kernel.nearest(found, pixels, LAYERS))
        xray = clock.run("all of cast", lambda: cast(item.surface, camera, LAYERS, backend=backend))
        clock.run("sparse matrix", lambda: encode(stored(xray)))
        clock.run("all of writing", lambda: xray.save(path))

    for _ in range(3):
        once()
    stages = clock.stages
    known = ("vertices before the camera", "hits", "hits into layers")
    attributes = stages.pop("all of cast") - sum(stages[name] for name in known)
    writing = stages.pop("all of writing") - stages["sparse matrix"]
    matrix = stages.pop("sparse matrix")
    stages["normals and colours"] = max(attributes, 0.0)
    stages["sparse matrix"] = matrix
    stages["compress and write"] = writing
    return clock


PEAK = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np
from xray_addon import Camera, Surface, cast
folder, backend, size = Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
one = Surface([[-1.0, 0, -1], [1, 0, -1], [0, 0, 1]], [[0, 1, 2]])
camera = Camera.look_at((0.9, -0.9, 0.6), width=size, height=size)
cast(one, camera.resized(8, 8), backend=backend).save(folder / "warm.npz")
surface = Surface(np.load(folder / "vertices.npy"), np.load(folder / "faces.npy"))

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))

Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
cast(surface, camera, backend=backend).save(folder / "peak.npz")
print((status("VmHWM") - before) / 1024)
"""


def peak_memory(item: Subject, size: int, backend: str, folder: Path) -> float:
    """MB that casting and writing take beyond the mesh, in a process of their own (Linux)."""
    np.save(folder / "vertices.npy", item.surface.vertices)
    np.save(folder / "faces.npy", item.surface.faces)
    command = [sys.executable, "-c", PEAK, str(ROOT), str(folder), backend, str(size)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


FIRST = """
import sys, time
sys.path.insert(0, sys.argv[1])
from xray_addon import Camera, Material, Surface, cast
import numpy as np
uvs = np.zeros((1, 3, 2))
texture = Material(texture=np.zeros((2, 2, 3), np.uint8))
surface = Surface([[-1.0, 0, -1], [1, 0, -1], [0, 0, 1]], [[0, 1, 2]], corner_uvs=uvs,
                  materials=[texture])
began = time.process_time()
cast(surface, Camera.look_at((0, -3, 0), width=8, height=8), backend="numba")
print(time.process_time() - began)
"""


def first_calls(folder: Path) -> tuple[float, float]:
    """Seconds of a process's first compiled cast: with nothing compiled, and from the cache."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, "-c", FIRST, str(ROOT)]
    cold, warm = (
        float(
            subprocess.run(
                command, env=environment, capture_output=True, text=True, check=True
            ).stdout
        )
        for _ in range(2)
    )
    return cold, warm


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown."""
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f}" if seconds < 0.1 else f"{seconds * 1e3:.0f}"


def compare(items: list[Subject], folder: Path) -> tuple[str, str]:
    """Tables: each mesh beside the others' ways, and where the time goes."""
    rows, ratios, stages = [], [], {}
    for item in items:
        say(item.name)
        theirs = published_xray(item.mesh, item.face_colors, view(), folder / "theirs.npz")
        casting_only = theirs.stages["tree and hits"] + theirs.stages["hits into layers, in Python"]
        o3d = by_open3d(item, view())
        ours = {backend: by_cast(item, view(), backend) for backend in BACKENDS}
        files = {b: written(item, view(), b, folder / "ours.npz") for b in BACKENDS}
        xray = cast(item.surface, view(), LAYERS)
        np.savez_compressed(folder / "same.npz", **encode(stored(xray)))
        size = (folder / "ours.npz").stat().st_size / (folder / "same.npz").stat().st_size
        ratio = [
            casting_only / ours["numpy"],
            casting_only / ours["numba"],
            o3d / ours["numba"],
            theirs.total / files["numpy"].total,
            theirs.total / files["numba"].total,
            size,
        ]
        ratios.append(ratio)
        rows.append(
            [
                item.name,
                f"{len(item.surface.faces):,}",
                f"{len(xray.index):,}",
                *map(milliseconds, (casting_only, o3d, ours["numpy"], ours["numba"])),
                *(f"{value:.1f}" for value in ratio[:5]),
                f"{size:.3f}",
            ]
        )
        stages[item.name] = {
            "published way": theirs.stages,
            **{NAMES[backend]: files[backend].stages for backend in BACKENDS},
        }
    middle, least = np.median(ratios, axis=0), np.min(ratios, axis=0)
    for name, values, size in (
        ("median", middle, middle[5]),
        ("worst", least, np.max(ratios, axis=0)[5]),
    ):
        cells = [f"{value:.1f}" for value in values[:5]]
        rows.append([name, "", "", "", "", "", "", *cells, f"{size:.3f}"])
    head = [
        "mesh",
        "triangles",
        "hits",
        "published ms",
        "Open3D ms",
        "NumPy ms",
        "numba ms",
        "published / NumPy",
        "published / numba",
        "Open3D / numba",
        "written, published / NumPy",
        "written, published / numba",
        "file size",
    ]
    names = ["published way", *NAMES.values()]
    listed = []
    for item in (items[0], items[-3], items[-1]):  # plain, textured, of millions of triangles
        order = dict.fromkeys(stage for name in names for stage in stages[item.name][name])
        for stage in order:
            cells = [stages[item.name][name].get(stage) for name in names]
            listed.append(
                [item.name, stage, *("" if c is None else milliseconds(c) for c in cells)]
            )
        totals = [sum(stages[item.name][name].values()) for name in names]
        listed.append([item.name, "**all**", *map(milliseconds, totals)])
    return table(head, rows), table(["mesh", "stage", *(f"{n}, ms" for n in names)], listed)


def growth(folder: Path) -> tuple[str, str]:
    """Tables of cost by triangles and by pixels; draws the plot."""
    lines: dict[str, dict[str, list[tuple[float, float]]]] = {"triangles": {}, "pixels": {}}
    tables = []
    for axis, steps in (("triangles", TRIANGLES), ("pixels", PIXELS)):
        rows = []
        for step in steps:
            item = torus(step if axis == "triangles" else 100_000)
            size = step if axis == "pixels" else SIZE
            say(f"{item.name} at {size}")
            times = {
                "published way": _casting(
                    published_xray(item.mesh, item.face_colors, view(size), folder / "x.npz", 2)
                ),
                "Open3D": by_open3d(item, view(size)),
                **{NAMES[b]: by_cast(item, view(size), b, 3) for b in BACKENDS},
            }
            memory = [peak_memory(item, size, backend, folder) for backend in BACKENDS]
            at = len(item.surface.faces) if axis == "triangles" else size
            for name, seconds in times.items():
                lines[axis].setdefault(name, []).append((at, seconds * 1e3))
            rows.append(
                [
                    f"{at:,}",
                    *map(milliseconds, times.values()),
                    *(f"{value:.0f}" for value in memory),
                ]
            )
        head = ["triangles" if axis == "triangles" else "width and height, px"]
        head += [f"{name}, ms" for name in times]
        head += [f"peak MB, {name}" for name in BACKENDS]
        tables.append(table(head, rows))
    draw(lines, ROOT / "docs" / "casting.png")
    return tables[0], tables[1]


def _casting(clock: Clock) -> float:
    return clock.stages["tree and hits"] + clock.stages["hits into layers, in Python"]


def draw(lines: dict[str, dict[str, list[tuple[float, float]]]], path: Path) -> None:
    """Milliseconds over triangles and over pixels."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    labels = {
        "triangles": f"triangles, at {SIZE} x {SIZE} px",
        "pixels": "width and height in px, at 100,000 triangles",
    }
    for panel, (axis, ways) in zip(panels, lines.items(), strict=True):
        for name, points in ways.items():
            panel.loglog(*zip(*points, strict=True), marker="o", label=name)
        panel.set_xlabel(labels[axis])
        panel.grid(alpha=0.3)
    panels[1].set_xticks(PIXELS, [str(size) for size in PIXELS])
    panels[1].minorticks_off()
    panels[0].set_ylabel(f"ms a view of {LAYERS} layers, one core")
    panels[0].legend()
    figure.savefig(path, dpi=110)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Write the page."""
    if os.environ.get("OMP_NUM_THREADS") != "1":
        sys.exit("Set OMP_NUM_THREADS=1: the comparison is on one core.")
    parser = argparse.ArgumentParser(description=__doc__)
    shared = Path(os.environ.get("XRAY_ASSETS", ROOT.parent / "shared" / "assets"))
    parser.add_argument("folder", nargs="?", type=Path, default=shared / "bench")
    parser.add_argument("--scans", type=int, default=8)
    arguments = parser.parse_args()
    paths = sorted(arguments.folder.rglob("*.glb"))
    if not paths:
        sys.exit(f"{arguments.folder} holds no .glb files; set XRAY_ASSETS.")
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, arguments.scans).astype(int)]
    items = [scan(path) for path in chosen]
    bumpy = trimesh.creation.icosphere(8)
    bumps = 1 + 0.05 * np.sin(bumpy.vertices * 20).prod(axis=1)
    items += [
        subject("sphere", Surface(bumpy.vertices * bumps[:, None], bumpy.faces)),
        torus(2_000_000),
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cold, warm = first_calls(folder)
        meshes, stages = compare(items, folder)
        triangles, pixels = growth(folder)
    versions = ", ".join(
        f"{module.__name__} {module.__version__}" for module in (np, trimesh, open3d)
    )
    page = f"""# Benchmarks of casting

Written by `make benchmark`; do not edit. One run, one thread, processor time, {SIZE} x {SIZE} px
and {LAYERS} layers unless said otherwise; {platform.machine()}, Python
{platform.python_version()}, {versions}. Quote the ratios, not the times.

The published way is trimesh with Embree, a Python loop over the hits, a SciPy matrix and
`np.savez_compressed`. It and Open3D build a tree a view, as the published script does.

## Beside others

{meshes}
The ratios from `published / NumPy` to `Open3D / numba` are about casting alone, `written` about a
view cast, encoded, compressed and written to a file. `file size`: of the file against the same
arrays by `np.savez_compressed`, which the published code uses.

A process's first compiled cast takes {cold:.1f} s where nothing is compiled yet, {warm:.1f} s from
the cache that it leaves.

## Where the time goes

{stages}
## Cost as triangles grow

{triangles}
## Cost as pixels grow

{pixels}
Peak memory is what casting and writing take beyond the mesh itself.

![Milliseconds a view by triangles and by pixels](casting.png)
"""
    (ROOT / "docs" / "benchmarks.md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
