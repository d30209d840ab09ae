"""Renders the pictures that RenderDiffusion's built-in weights are trained and measured on.

    python tests/benchmarks/renderdiffusion_data.py MESHES OUT

MESHES is a folder of meshes with a manifest.csv. OUT gets the folders `train` and `val`, each in
the published layout: images/<uid>/NNN.png with alpha and transforms.json, without X-Rays. Objects
of both are the manifest's; the light is fixed to the object, so that its colours do not depend on
the viewer.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runtime.meshes.collection import MeshFile, list_meshes
from xray_addon.camera import Camera
from xray_addon.casting import cast
from xray_addon.errors import XRayError
from xray_addon.files.png import write_png
from xray_addon.files.transforms import write_transforms
from xray_addon.pictures.shading import Lights, reduce_image, shade, to_bytes
from xray_addon.surface import Surface
from xray_addon.systems.renderdiffusion import FRAME

# The furniture among the packs, and by how many degrees about z its objects are turned, so that
# the fronts of all face -y.
PACKS = {
    "kenney_furniture": 180.0,
    "quaternius_house_interior_pack": 0.0,
    "quaternius_old_furniture_pack_mar_2016": 0.0,
    "quaternius_old_furniture_pack_march_2019": 0.0,
    "quaternius_old_furniture_pack_oct_2017": -90.0,
    "quaternius_old_furniture_pack_vol_2_jul_2016": 0.0,
}
DIAGONAL = 1.1  # of an object's bounding box
TALLEST = math.radians(45)  # elevation of the camera; the lowest is 0
SCALES = (0.85, 1.1)  # of objects that are trained on, different in each picture
SUN = np.array([0.0, -0.6, 0.8])  # towards it, in the object's axes


def place(file: MeshFile) -> Surface:
    """The object upright about the origin, turned to -y, its box's diagonal `DIAGONAL` long."""
    surface = file.read().normalized()
    low, high = surface.bounds
    size = DIAGONAL / float(np.linalg.norm(high - low))
    turn = math.radians(PACKS.get(file.path.parent.name, 0.0))
    cosine, sine = size * math.cos(turn), size * math.sin(turn)
    matrix = np.diag([size, size, size, 1.0])
    matrix[:2, :2] = [[cosine, -sine], [sine, cosine]]
    return surface.transformed(matrix)


def camera_around(azimuth: float, elevation: float, size: int) -> Camera:
    """The frame's camera; azimuth 0 is on -y. Radians."""
    level = math.cos(elevation)
    eye = np.array([level * math.sin(azimuth), -level * math.cos(azimuth), math.sin(elevation)])
    return Camera.look_at(FRAME.distance * eye, fov_x=FRAME.fov_x, width=size, height=size)


def picture(surface: Surface, camera: Camera) -> np.ndarray:
    """RGBA (S, S, 4) uint8, under a light that is fixed to the object."""
    fine = camera.resized(2 * camera.width, 2 * camera.height)
    axes = camera.camera_to_world[:3, :3]
    lights = Lights(0.55, 0.3, axes[2], (SUN @ axes)[None], np.array([0.6]))
    return to_bytes(reduce_image(shade(cast(surface, fine, 1), fine, lights), 2))


def views(
    surface: Surface, count: int, size: int, random: np.random.Generator, scaled: bool
) -> Iterator[tuple[Camera, np.ndarray]]:
    """Pictures from random sides, and their cameras."""
    for _ in range(count):
        camera = camera_around(random.uniform(0, 2 * math.pi), random.uniform(0, TALLEST), size)
        scale = random.uniform(*SCALES) if scaled else 1.0
        yield camera, picture(surface.transformed(np.diag([scale, scale, scale, 1.0])), camera)


def main() -> None:
    """Render all objects."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("meshes", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--views", type=int, default=48, help="of each object that is trained on")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for split, count in (("val", 10), ("train", arguments.views)):
        files = list_meshes(arguments.meshes, split=split)
        files = [file for file in files if file.path.parent.name in PACKS]
        for number, file in enumerate(files):
            uid = f"{file.path.parent.name}-{file.path.stem}"
            folder = arguments.out / split / "images" / uid
            if (folder / "transforms.json").exists():
                continue
            random = np.random.default_rng([arguments.seed, number, len(split)])
            try:
                surface = place(file)
            except XRayError as error:
                print(f"skipped {uid}: {error}")
                continue
            folder.mkdir(parents=True, exist_ok=True)
            made = list(views(surface, count, arguments.size, random, split == "train"))
            names = [f"{view:03d}" for view in range(count)]
            for name, (_, pixels) in zip(names, made, strict=True):
                write_png(folder / f"{name}.png", pixels)
            write_transforms(folder / "transforms.json", [c for c, _ in made], names)


if __name__ == "__main__":
    main()
