"""The demo's picture: reference image, predicted layers, and the mesh from its sides."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtime.evaluation.pictures import column, depth_tile, label, on_background, row
from xray_addon import XRay

SIZE = 240


def main() -> None:
    """Compose it from files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reference", type=Path)
    parser.add_argument("xray", type=Path)
    parser.add_argument("sides", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    xray = XRay.load(arguments.xray)

    def picture(path: Path) -> Image.Image:
        return on_background(np.asarray(Image.open(path).convert("RGBA")), SIZE)

    def titled(title: str, tile: Image.Image) -> Image.Image:
        return column([label(title, SIZE, 24), tile])

    def layer_tile(frames: NDArray[np.floating], layer: int) -> Image.Image:
        rgba = np.concatenate([frames[layer], xray.hit[layer][..., None]], axis=-1)
        return on_background(np.clip(rgba * 255, 0, 255).astype(np.uint8), SIZE)

    layers = range(2)  # a generated mesh is one solid: its layers are its front and its back
    first = [titled("reference image", picture(arguments.reference))]
    first += [
        titled(f"mesh, side {number}", picture(path))
        for number, path in enumerate(arguments.sides, 1)
    ]
    depths = [titled(f"predicted depth, layer {n + 1}", depth_tile(xray, n, SIZE)) for n in layers]
    normals = [
        titled(f"predicted normal, layer {n + 1}", layer_tile(xray.normal * 0.5 + 0.5, n))
        for n in layers
    ]
    colors = [titled(f"predicted colour, layer {n + 1}", layer_tile(xray.color, n)) for n in layers]
    column([row(first), row(depths + normals), row(colors)]).save(arguments.out)


if __name__ == "__main__":
    main()
