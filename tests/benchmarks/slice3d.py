"""Time and memory of Slice3D's stages at full size, on this machine's CPU.

    python tests/benchmarks/slice3d.py FOLDER [--threads 2]

FOLDER holds the three checkpoints; any weights will do, the work is the same. Seconds are those of
the CPU (all threads together) and, behind them, of the clock.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runtime.meshes.extraction import march, sample_distances
from runtime.slice3d.files import find_network
from runtime.slice3d.generator import world_camera
from runtime.slice3d.painting import paint
from runtime.slice3d.weights import load_diffusion, load_field, load_regression
from xray_addon.surface import Surface
from xray_addon.systems.slice3d import Slice3DSettings

QUERIES = 8192


def peak() -> float:
    """The most memory that this process has held so far, in GB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1e6


def measured(name: str, work: Callable[[], Any]) -> Any:
    """`work()`, its time and the memory by then as a row of a table."""
    cpu, clock = time.process_time(), time.perf_counter()
    result = work()
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    print(f"| {name} | {cpu:.1f} ({clock:.1f}) | {peak():.1f} |", flush=True)
    return result


def sphere(side: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """A field whose surface is about as large as an object's."""

    def evaluate(index: torch.Tensor) -> torch.Tensor:
        place = torch.stack([index // side**2, index // side % side, index % side], dim=-1)
        return 0.3 - (place / (side - 1) - 0.5).norm(dim=-1)

    return evaluate


def regression(settings: Slice3DSettings, image: torch.Tensor, points: torch.Tensor) -> None:
    """The one pass, and the field that it gives."""
    path = find_network("regression", settings)
    network = measured("regression: read", lambda: load_regression(path))
    maps, _ = measured("regression: slices", lambda: network.encode(image))
    tables = measured("field: tables", lambda: network.tables(maps))

    def ask() -> None:
        for part in points.split(2048, dim=1):
            network.distance_by_tables(tables, part)

    measured(f"field: {points.shape[1]} points", ask)


def meshing(cells: int) -> None:
    """The search for the surface of a ball, without the network's part, and what follows."""
    side = cells + 1
    sparse = measured(
        f"mesh: search of {cells} cells a side, without the network",
        lambda: sample_distances(sphere(side), side, 1 / cells, torch.device("cpu")),
    )
    print(f"| (a ball asks the field {sparse.evaluated:,} times) | | |")
    vertices, faces = measured("mesh: marching cubes", lambda: march(sparse, 0.5, closed=True))
    picture = np.full((256, 256, 4), 255, dtype=np.uint8)
    measured("mesh: colours", lambda: paint(Surface(vertices, faces), picture, world_camera()))


def generation(settings: Slice3DSettings, image: torch.Tensor, random: torch.Generator) -> None:
    """The latent diffusion, and the network that reads what it draws."""
    path = find_network("diffusion", settings)
    model = measured("generation: read", lambda: load_diffusion(path))
    condition = measured("generation: image", lambda: model.condition(image))
    grid = torch.randn(model.grid_shape(), generator=random)
    step = torch.tensor([481])
    measured("generation: one of the 200 steps", lambda: model.unet(grid, step, *condition))
    slices = measured("generation: pictures", lambda: model.decode(grid))
    field_path = find_network("gt_to_3d", settings)
    reader = measured("slices to 3D: read", lambda: load_field(field_path))
    measured("slices to 3D: maps", lambda: reader.encode(slices))


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    random = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 128, 128, generator=random) * 2 - 1
    points = torch.rand(1, QUERIES, 3, generator=random) - 0.5
    settings = Slice3DSettings(checkpoint=str(options.folder))
    print(f"{options.threads} threads\n\n| stage | s CPU (clock) | GB at most |\n|---|---|---|")
    regression(settings, image, points)
    for cells in (128, 256):
        meshing(cells)
    generation(replace(settings, branch="generation"), image, random)


if __name__ == "__main__":
    main()
