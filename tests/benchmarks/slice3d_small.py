"""How good small Slice3D networks are that were trained on data of `slice3d_data.py`.

    python tests/benchmarks/slice3d_small.py training-view regression.safetensors DATA MESH...
    python tests/benchmarks/slice3d_small.py true-slices gt_to_3d.safetensors MESH...

`training-view` compares slices and meshes with the objects that a regression was trained on, from
view 0. `true-slices` runs `evaluate` with the true slices of each object in the place of its image,
so that its baselines stand beside. Distances are in longest sides, without alignment.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runtime.evaluation import evaluate, make_cases, markdown_table
from runtime.evaluation.protocols import compare
from runtime.meshes.collection import MeshFile
from runtime.meshes.files import read_mesh
from runtime.slice3d.data import SliceData
from runtime.slice3d.generator import Slice3DGenerator
from runtime.slice3d.preparation import to_tensor
from runtime.slice3d.weights import load_regression
from xray_addon.canonical import place
from xray_addon.errors import XRayError
from xray_addon.generated import Generated
from xray_addon.progress import ProgressCallback, ignore_progress
from xray_addon.slices.layout import Views
from xray_addon.slices.slicing import DISTANCE, slice_surface
from xray_addon.surface import Surface
from xray_addon.systems.slice3d import FRAME, Slice3DSettings
from xray_addon.systems.system import Inputs

POINTS = 10_000
SLICE_SIZE = 64  # px that slices are drawn with, as in the training data


class FromTrueSlices(Slice3DGenerator):
    """Reads the true slices of the cases of an evaluation, one after the other."""

    def __init__(self, checkpoint: Path, files: Sequence[MeshFile]) -> None:
        super().__init__(str(checkpoint), "cpu")
        self._cases = make_cases(files, 1, 0, [])

    def run(self, inputs: Inputs, settings: Any, progress: ProgressCallback) -> Generated:
        """The mesh of the next case; its image is not looked at."""
        view = next(self._cases).view
        placed = place(view.source, view.azimuth, view.elevation, frame=FRAME)
        if placed is None:
            raise XRayError("bad_settings", "It does not fit into the frame.", "Leave it out.")
        camera = FRAME.camera(SLICE_SIZE, view.elevation)
        slices = slice_surface(view.source.transformed(placed[0]), camera).pictures()
        return super().run(replace(inputs, image=slices), settings, progress)


def true_slices(weights: Path, meshes: Sequence[Path], cells: int) -> None:
    """Print the table of `evaluate`."""
    files = [MeshFile(path, str(path)) for path in meshes]
    settings = Slice3DSettings(branch="slices", grid_resolution=cells)
    generator = FromTrueSlices(weights, files)
    result, _ = evaluate(generator, files, None, settings=settings, frame=FRAME)
    print(markdown_table(result))
    for skipped in result["skipped"]:
        print(f"skipped: {skipped}")


def truth(surface: Surface, views: Views) -> tuple[NDArray[np.float64], float]:
    """Points of the object in the axes of view 0 about its middle, and its longest side there."""
    placed = surface.transformed(views.placed(surface))
    matrix = views.cameras[0].world_to_camera
    points = placed.sample(POINTS) @ matrix[:3, :3].T + matrix[:3, 3] + (0, 0, DISTANCE)
    return points, placed.longest_side


@torch.inference_mode()
def training_view(weights: Path, folder: Path, meshes: Sequence[Path], cells: int) -> None:
    """Print a table of the objects and their mean."""
    network = load_regression(weights)
    data = SliceData(folder, "train", size=network.config.image_size, background="black")
    maker = Slice3DGenerator("", "cpu")
    by_uid = {f"{path.parent.name}_{path.stem}": path for path in meshes}
    rows = []
    print("| object | slices, dB | CD | F@0.02 |\n|---|---|---|---|")
    for uid in data.uids:
        pictures = to_tensor(data.pictures(uid, 0))
        maps, drawn = network.encode(pictures[:1])
        error = ((drawn[0] - pictures[1:]) / 2).square().mean()
        points, side = truth(read_mesh(by_uid[uid], texture_size=16), data.views(uid))
        made = maker.mesh(network, maps, cells, ignore_progress).sample(POINTS)
        found = compare(made, points, side)
        rows.append((float(-10 * torch.log10(error)), found["cd"], found["f@0.02"]))
        print("| {} | {:.1f} | {:.4f} | {:.3f} |".format(uid, *rows[-1]), flush=True)
    print("| mean | {:.1f} | {:.4f} | {:.3f} |".format(*np.mean(rows, axis=0)))


def main() -> None:
    """Print the table that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("training-view", "true-slices"):
        command = commands.add_parser(name)
        command.add_argument("weights", type=Path)
        if name == "training-view":
            command.add_argument("data", type=Path)
        command.add_argument("meshes", type=Path, nargs="+")
        command.add_argument("--cells", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "true-slices":
        true_slices(options.weights, options.meshes, options.cells)
    else:
        training_view(options.weights, options.data, options.meshes, options.cells)


if __name__ == "__main__":
    main()
