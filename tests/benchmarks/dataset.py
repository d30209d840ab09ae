"""What a whole dataset costs, beside the published two scripts and beside BlenderProc's way.

.venv/benchmark/bin/python tests/benchmarks/dataset.py      (make benchmark; needs the meshes)

Twenty objects of XRAY_ASSETS/train. The measuring is done by Blender's Python, .venv/blender, which
has the extension of this checkout. All times are processor time of all threads, so that other work
on the machine counts little. Writes the last section of docs/benchmarks.md and docs/dataset.png.

- Ours: `make_dataset`, with the built-in shader, without pictures, and with Cycles.
- The published way has two scripts: Blender renders the picture with Cycles, and trimesh with
  Embree casts the X-Ray, with a Python loop over the hits, a SciPy matrix, `np.savez_compressed`.
- BlenderProc's way is a Cycles render alone; depth and normals of first hits are passes of it.

The pictures of the three are the same render, of 512 x 512 px and 32 samples, made once.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
BLENDER = ROOT / ".venv" / "blender" / "bin" / "python"
ASSETS = Path(os.environ.get("XRAY_ASSETS", ROOT.parent / "shared" / "assets"))
OBJECTS, VIEWS, SEED = 20, 4, 1
SLICES = "slices"
HEADING = "## A whole dataset\n"
STAGES = ("load", "surface", "cast", "image", "write", "rest")


def measure(out: Path) -> None:
    """In Blender's Python: seconds a view by stage, of each way, as JSON."""
    import extension
    from extension import part

    extension.enable()
    attempt, capture = part("xray_addon.dataset.attempt"), part("operators.dataset.capture")
    attempt.time = types.SimpleNamespace(perf_counter=time.process_time)
    settings = part("xray_addon.settings.dataset").DatasetSettings
    meshes = sorted((ASSETS / "train").rglob("*.glb"))
    random.Random(SEED).shuffle(meshes)
    source = extension.RESOURCES / "source"
    source.mkdir()
    for number, mesh in enumerate(meshes[:OBJECTS]):
        (source / f"{number:02d}-{mesh.name}").symlink_to(mesh)
    items = part("xray_addon.dataset.manifest").read_source(str(source))
    found: dict[str, Any] = {}
    for name, chosen in {
        "ours, built-in shader": settings(views=VIEWS, image="cast"),
        "ours, no pictures": settings(views=VIEWS, image="none"),
        "ours, Cycles": settings(views=1, image="cycles"),
    }.items():
        folder = extension.RESOURCES / name
        first = settings(views=1, image="none" if chosen.image == "cycles" else chosen.image)
        capture.make_dataset(items[:2], extension.RESOURCES / f"first {name}", first)
        began = time.process_time()
        run = capture.make_dataset(items, folder, chosen)
        total = time.process_time() - began
        views = sum(result.views for result in run.results)
        stages = dict.fromkeys(STAGES, 0.0)
        for log in (folder / "logs").glob("*.json"):
            for stage, seconds in json.loads(log.read_text())["stages"].items():
                stages["rest" if stage == "hash" else stage] += seconds / views
        stages["rest"] = total / views - sum(stages[stage] for stage in STAGES[:-1])
        found[name] = stages
        print(name, views, "views", total, "s", file=sys.stderr, flush=True)
    found[SLICES] = dict(enumerate(slices(items)))
    found["published way"] = dict.fromkeys(STAGES, 0.0) | published(items, out.parent)
    cycles = found["ours, Cycles"]
    found["published way"] |= {"image": cycles["image"], "load": 2 * cycles["load"]}
    found["BlenderProc's way"] = {
        **dict.fromkeys(STAGES, 0.0),
        **{stage: cycles[stage] for stage in ("load", "image")},
    }
    out.write_text(json.dumps(found))


def slices(items: Any) -> list[float]:
    """How many casts the twelve slices of a view and their pictures take, for each item."""
    import bpy
    from extension import part

    casting, slicing = part("xray_addon.casting"), part("xray_addon.slices.slicing")
    convert, camera = part("operators.convert"), part("xray_addon.camera").Camera

    def ratio(surface: Any, seen: Any) -> float:
        seconds = {"cast": np.inf, "slices": np.inf}
        for _ in range(3):
            for name, work in (
                ("cast", lambda: casting.cast(surface, seen)),
                ("slices", lambda: slicing.slice_surface(surface, seen).pictures()),
            ):
                began = time.process_time()
                work()
                seconds[name] = min(seconds[name], time.process_time() - began)
        return seconds["slices"] / seconds["cast"]

    ratios = []
    for item in items:
        objects = part("operators.convert.mesh_files").open_alone(item.source)
        depsgraph = bpy.context.evaluated_depsgraph_get()
        surface = convert.surface_from_objects(objects, depsgraph)
        seen = camera.look_at((0.9, -0.9, 0.6))
        ratios.append(ratio(surface.transformed(surface.normalizing), seen))
    return ratios


def published(items: Any, folder: Path) -> dict[str, float]:
    """Seconds a view of the published script that casts: "cast" and "write"."""
    import trimesh
    from published_way import published_xray

    from xray_addon import Camera

    seconds = {"cast": 0.0, "write": 0.0}
    camera = Camera.look_at((0.9, -0.9, 0.6))
    for item in items:
        parts = [part for part in trimesh.load_scene(item.source).dump() if hasattr(part, "faces")]
        colors = np.concatenate([face_colors(part) for part in parts])
        mesh = trimesh.util.concatenate([trimesh.Trimesh(p.vertices, p.faces) for p in parts])
        low, high = mesh.bounds
        mesh.apply_translation(-(low + high) / 2)
        mesh.apply_scale(1 / (high - low).max())
        stages = published_xray(mesh, colors, camera, folder / "published.npz", runs=1).stages
        seconds["write"] += stages.pop("compress and write") / len(items)
        seconds["cast"] += sum(stages.values()) / len(items)
    return seconds


def face_colors(mesh: Any) -> np.ndarray:
    """Colours (M, 3), 0..1, of a trimesh, one a face as the published script takes them."""
    visual = mesh.visual
    if visual.kind != "texture":
        return visual.face_colors[:, :3] / 255
    # One colour where there is no image.
    found = visual.material.to_color(visual.uv) if visual.uv is not None else None
    color = np.atleast_2d(visual.material.main_color if found is None else found)
    corners = np.broadcast_to(color, (len(mesh.vertices), color.shape[1]))[mesh.faces]
    return corners.mean(axis=1)[:, :3] / 255


def section(found: dict[str, dict[str, float]]) -> str:
    """The section of the page."""
    casts = sorted(found.pop(SLICES).values())
    totals = {name: sum(stages.values()) for name, stages in found.items()}
    head = ["way", *(f"{stage}, ms" for stage in STAGES), "all, ms a view", "views a CPU second"]
    lines = [
        f"| {' | '.join(head)} |",
        "|---" * (len(STAGES) + 3) + "|",
    ]
    for name, stages in found.items():
        cells = [f"{1e3 * stages[stage]:.1f}" for stage in STAGES]
        total = totals[name]
        lines.append(f"| {name} | {' | '.join(cells)} | {1e3 * total:.1f} | {1 / total:.2g} |")
    faster = totals["published way"] / totals["ours, built-in shader"]
    same = totals["published way"] / totals["ours, Cycles"]
    return f"""{HEADING}
{OBJECTS} training objects, {VIEWS} views each (Cycles: one), 256 x 256 px, 16 layers, pictures of
512 x 512 px; Cycles with 32 samples. Processor time of all threads. The published way takes
{faster:.0f} times as long as ours with the built-in shader, {same:.2f} times as long with Cycles.
The same render stands for the pictures of all three Cycles rows. BlenderProc's way makes no X-Ray:
its depth and normals are those of first hits.

{chr(10).join(lines)}

The twelve slices of a view and their pictures, which `--slices` adds, take as long as
{casts[len(casts) // 2]:.1f} casts of 16 layers (median; {casts[-1]:.1f} at most).

![Milliseconds a view by stage](dataset.png)
"""


def draw(found: dict[str, dict[str, float]], path: Path) -> None:
    """Stacked bars of ours, and all ways on a logarithmic axis."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    names = [name for name in found if name.startswith("ours") and "Cycles" not in name]
    start = np.zeros(len(names))
    for stage in STAGES:
        values = np.array([1e3 * found[name][stage] for name in names])
        left.barh(names, values, left=start, label=stage)
        start += values
    left.set_xlabel("ms a view")
    left.legend(ncols=3, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    right.barh([*found], [1e3 * sum(stages.values()) for stages in found.values()])
    right.set_xscale("log")
    right.set_xlim(left=10)
    right.set_xlabel("ms a view, logarithmic")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure in Blender's Python, and write the section."""
    if sys.argv[1:2] == ["--measure"]:
        measure(Path(sys.argv[2]))
        sys.stderr.flush()
        os._exit(0)  # Blender's destructors can hang
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        subprocess.run([str(BLENDER), __file__, "--measure", str(out)], check=True)
        found = json.loads(out.read_text())
    page = ROOT / "docs" / "benchmarks.md"
    before = page.read_text(encoding="utf-8").partition(HEADING)[0].rstrip("\n")
    page.write_text(f"{before}\n\n{section(found)}", encoding="utf-8")
    draw(found, ROOT / "docs" / "dataset.png")


if __name__ == "__main__":
    main()
