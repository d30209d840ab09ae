"""Where the time from an image to a mesh goes, cold and warm, and a sheet of what photos become.

Run by hand in the runtime's environment, with the photos in XRAY_ASSETS:

    OMP_NUM_THREADS=2 python tests/benchmarks/generate.py --out out/photos

Writes photos.jpg (each photo's mesh from two sides, six in a row; an error where there is none) and
times.md: the median over the photos of wall clock and of CPU time by stage, in one process that is
warm, and what a fresh `python -m runtime generate` takes for one image.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import runtime  # noqa: E402
from runtime.evaluation.pictures import column, label, mesh_tile, row  # noqa: E402
from runtime.meshes.files import write_glb  # noqa: E402
from runtime.xray import generator as module  # noqa: E402
from xray_addon import GenerateSettings  # noqa: E402
from xray_addon.errors import XRayError  # noqa: E402

ASSETS = Path(os.environ.get("XRAY_ASSETS", ROOT.parent / "shared" / "assets"))
DEMO = ROOT / "tests" / "demo" / "toadstool.png"
TILE = 112
ACROSS = 6
STAGES = {
    "cut_object": "read the image, cut the object out",
    "frame_sized": "frame",
    "sample": "network, image and its mirror",
    "decode": "read the layers",
    "centered": "move them to the frame's middle",
    "solid_mesh": "the solid's mesh",
    "two_sides": "its texture",
    "cast": "its own layers",
    "write_glb": "write GLB",
    "all": "all",
}


class Clock:
    """Wall clock and CPU seconds of named functions, a pair a call."""

    def __init__(self) -> None:
        self.times: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, whose calls are counted."""

        def call(*args: Any, **kwargs: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            result = work(*args, **kwargs)
            self.times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
            return result

        return call


def main() -> None:
    """Generate from every photo, write the sheet and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    cold, cold_cpu = fresh(out / "cold.glb")

    began = time.perf_counter()
    generator = runtime.load("xray", device="cpu")
    loading = time.perf_counter() - began
    clock = Clock()
    for name in list(STAGES)[:-2]:
        setattr(module, name, clock.timed(name, getattr(module, name)))

    def work(path: Path) -> Any:
        generated = generator.generate(path, GenerateSettings())
        clock.timed("write_glb", write_glb)(out / "warm.glb", generated.surface)
        return generated

    tiles = []
    for path in sorted(p for p in (ASSETS / "photos").glob("*/*") if p.suffix in (".webp", ".jpg")):
        try:
            generated = clock.timed("all", work)(path)
        except XRayError as error:
            tiles.append(label(f"{path.name}: {error.code}", 2 * TILE, TILE))
            continue
        sides = [mesh_tile(generated.surface, generated.camera, side, TILE) for side in (0, 130)]
        tiles.append(row(sides))
    rows = [row(tiles[start : start + ACROSS]) for start in range(0, len(tiles), ACROSS)]
    column(rows).save(out / "photos.jpg", quality=80)

    lines = ["| stage | s | CPU s |", "|---|---|---|"]
    for name, stage in STAGES.items():
        wall, cpu = np.median(clock.times[name], axis=0)
        lines.append(f"| {stage} | {wall:.2f} | {cpu:.2f} |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    lines += [
        "",
        f"{len(clock.times['all'])} of {len(tiles)} photos gave a mesh. A fresh process takes "
        f"{cold:.1f} s for one image ({cold_cpu:.1f} s of CPU time); loading the weights "
        f"{loading:.1f} s. {torch.get_num_threads()} threads; load of the machine "
        f"{os.getloadavg()[0]:.1f}; at most {peak:.1f} GiB of memory.",
    ]
    (out / "times.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def fresh(target: Path) -> tuple[float, float]:
    """Seconds, and seconds of CPU time, of a new process that makes one mesh."""
    command = [sys.executable, "-m", "runtime", "generate", str(DEMO), "-o", str(target)]
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, "--device", "cpu"], cwd=ROOT, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, cpu


if __name__ == "__main__":
    main()
