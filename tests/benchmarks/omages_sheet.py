"""Ten objects as meshes, as omages, and as meshes again. Writes docs/omages.jpg.

Run by hand, in the runtime's environment; the meshes are in XRAY_ASSETS:

    python tests/benchmarks/omages_sheet.py
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omages import ROOT, default_assets, meshes
from PIL import Image

from runtime.meshes.unwrapping import unwrap_surface
from xray_addon.camera import Camera
from xray_addon.omage import Omage
from xray_addon.omage.encoding import EXTENT
from xray_addon.omage.pictures import views
from xray_addon.pictures.shading import shade_surface
from xray_addon.surface import Surface

SIZE = 150  # px of a picture
EYE = (0.9, -1.5, 0.8)
COLUMNS = ("mesh", "position", "normal", "albedo", "from 1024 px", "from 64 px")


def picture(surface: Surface) -> NDArray[np.uint8]:
    """The surface with a longest side of 1, on white."""
    camera = Camera.look_at(EYE, width=2 * SIZE, height=2 * SIZE)
    return on_white(shade_surface(surface, camera).astype(np.float32) / 255)


def on_white(rgba: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(SIZE, SIZE, 3) of a picture (H, W, 4), 0 to 1."""
    flat = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
    image = Image.fromarray(np.rint(np.clip(flat, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX))


def row(surface: Surface) -> NDArray[np.uint8]:
    """All pictures of one mesh, side by side."""
    omage, _ = Omage.encoded(surface, 1024, unwrap=unwrap_surface)
    shown = views(omage)
    pictures = [picture(surface), *(on_white(shown[name]) for name in COLUMNS[1:4])]
    for resolution in (1024, 64):
        decoded = omage.resized(resolution).decode()
        pictures.append(picture(replace(decoded, vertices=decoded.vertices / EXTENT)))
    return np.concatenate(pictures, axis=1)


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=default_assets())
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "omages.jpg")
    arguments = parser.parse_args()
    chosen = [surface.normalized() for _, _, surface in meshes(arguments.assets, 4)][:10]
    sheet = np.concatenate([row(surface) for surface in chosen])
    Image.fromarray(sheet).save(arguments.out, quality=80)


if __name__ == "__main__":
    main()
