"""Meshes to data in Slice3D's published layout, without Blender: the built-in shader draws all.

    python tests/benchmarks/slice3d_data.py OUT MESH... [--val MESH...] [--views 12] [--size 256]
        [--points 16384]

`blender -c xray dataset SOURCE OUT --slices` writes the same from anything that Blender opens.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runtime.meshes.files import read_mesh
from xray_addon.dataset.cameras import item_seed
from xray_addon.errors import XRayError
from xray_addon.files.png import write_png
from xray_addon.pictures.shading import Lights, shade_surface
from xray_addon.slices.layout import (
    IMAGES,
    POINTS,
    SDFS,
    SLICES,
    Views,
    distance_samples,
    write_distances,
    write_slices,
    write_splits,
)
from xray_addon.slices.slicing import slice_surface


def write_object(out: Path, views: int, size: int, points: int, path: Path) -> str | None:
    """One object; its uid, or None where it encloses nothing."""
    uid = f"{path.parent.name}_{path.stem}"
    surface = read_mesh(path, texture_size=256)
    try:
        distances = distance_samples(surface, item_seed(0, uid), points)
    except XRayError as error:
        print(f"{uid}: {error}", flush=True)
        return None
    drawn = Views.drawn(views, item_seed(0, uid), size)
    placed = surface.transformed(drawn.placed(surface))
    for number, camera in enumerate(drawn.cameras):
        picture = shade_surface(placed, camera, Lights.even(camera))
        write_png(out / IMAGES / uid / f"{number:03d}.png", picture)
        folder = out / SLICES / uid / f"{number:03d}"
        write_slices(folder, slice_surface(placed, camera).pictures())
    drawn.write(out / IMAGES / uid)
    write_distances(out / SDFS / f"{uid}.npy", distances)
    return uid


def main() -> None:
    """Write what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("meshes", type=Path, nargs="+")
    parser.add_argument("--val", type=Path, nargs="*", default=[])
    parser.add_argument("--views", type=int, default=12)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--points", type=int, default=POINTS, help="of each object's distances")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    began = time.perf_counter()
    work = partial(write_object, options.out, options.views, options.size, options.points)
    with ProcessPoolExecutor(options.processes) as pool:
        train = [uid for uid in pool.map(work, options.meshes) if uid]
        val = [uid for uid in pool.map(work, options.val) if uid]
    write_splits(options.out, {"train": train, "val": val, "test": val})
    seconds = time.perf_counter() - began
    print(f"{len(train)} + {len(val)} objects in {seconds:.0f} s")


if __name__ == "__main__":
    main()
