"""How good small Slice3D networks are that were trained on data of `slice3d_data.py`.

    python tests/benchmarks/slice3d_small.py WEIGHTS DATA MESH... [--split train] [--view 0]

WEIGHTS is a regression.safetensors or gt_to_3d.safetensors. Distances are in longest sides of the
object, in the camera's frame, without alignment; the silhouette sphere stands beside.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runtime.meshes.files import read_mesh
from runtime.slice3d.data import SliceData
from runtime.slice3d.generator import Slice3DGenerator
from runtime.slice3d.preparation import to_tensor
from runtime.slice3d.weights import REGRESSION, load_field, load_regression
from xray_addon.casting import cast
from xray_addon.errors import XRayError
from xray_addon.metrics import chamfer_distance, f_score
from xray_addon.progress import ignore_progress
from xray_addon.slices.layout import Views
from xray_addon.slices.slicing import DISTANCE
from xray_addon.surface import Surface

POINTS = 10_000
Positions = NDArray[np.float64]


def truth(surface: Surface, views: Views, view: int) -> tuple[Positions, float]:
    """Points of the object in the view's axes about its middle, and its longest side there."""
    placed = surface.transformed(views.placed(surface))
    matrix = views.cameras[view].world_to_camera
    points = placed.sample(POINTS) @ matrix[:3, :3].T + matrix[:3, 3] + (0, 0, DISTANCE)
    return points, placed.longest_side


def sphere(surface: Surface, views: Views, view: int) -> Positions:
    """A ball as wide as the silhouette, in the plane through the middle."""
    camera = views.cameras[view]
    hit = cast(surface.transformed(views.placed(surface)), camera, 1).hit[0]
    rows, columns = np.nonzero(hit)
    pixel = DISTANCE / camera.focal
    radius = np.sqrt(len(rows) / np.pi) * pixel
    middle = np.array(
        [(columns.mean() - camera.width / 2) * pixel, (camera.height / 2 - rows.mean()) * pixel, 0]
    )
    directions = np.random.default_rng(0).normal(size=(POINTS, 3))
    return middle + radius * directions / np.linalg.norm(directions, axis=1, keepdims=True)


@torch.inference_mode()
def main() -> None:
    """Print a table of the objects and the mean."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("meshes", type=Path, nargs="+")
    parser.add_argument("--split", default="train")
    parser.add_argument("--view", type=int, default=0)
    parser.add_argument("--cells", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    regression = options.weights.stem == REGRESSION
    network = (load_regression if regression else load_field)(options.weights)
    data = SliceData(
        options.data,
        options.split,
        size=network.config.image_size,
        background="black" if regression else "white",
    )
    maker = Slice3DGenerator("", "cpu")
    meshes = {f"{path.parent.name}_{path.stem}": path for path in options.meshes}
    rows = []
    print(
        "| object | slices, dB | CD | F@0.1 | sphere CD | sphere F@0.1 |\n|---|---|---|---|---|---|"
    )
    for uid in data.uids:
        pictures = to_tensor(data.pictures(uid, options.view))
        quality = float("nan")
        if regression:
            maps, drawn = network.encode(pictures[:1])
            error = ((drawn[0] - pictures[1:]) / 2).square().mean()
            quality = float(-10 * torch.log10(error))
        else:
            maps = network.encode(pictures[None, 1:])
        surface = read_mesh(meshes[uid], texture_size=16)
        points, side = truth(surface, data.views(uid), options.view)
        ball = sphere(surface, data.views(uid), options.view)
        try:
            made = maker.mesh(network, maps, options.cells, ignore_progress).sample(POINTS)
        except XRayError:
            made = np.zeros((1, 3))  # nothing predicted counts as a point in the middle
        row = [quality]
        for other in (made, ball):
            row += [
                chamfer_distance(other / side, points / side),
                f_score(other / side, points / side, 0.1),
            ]
        rows.append(row)
        print(f"| {uid} | " + " | ".join(f"{value:.3f}" for value in row) + " |", flush=True)
    print("| mean | " + " | ".join(f"{value:.3f}" for value in np.mean(rows, axis=0)) + " |")


if __name__ == "__main__":
    main()
