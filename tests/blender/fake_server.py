"""The real server with a generator that needs no weights: a coloured ball and its X-Ray.

The image's name chooses what happens: "slow" takes its time, "bad" fails, "big" has 200,000
vertices, and "usual" has about as many as a real result, and as many hits. For "photo" the distance
and Upright are chosen, unless they are given. The ball grows with the seed and the distance.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from fake_systems import stand_in

from runtime.generator import Generator
from runtime.server import serve
from xray_addon.camera import Camera
from xray_addon.casting import cast
from xray_addon.errors import XRayError
from xray_addon.files.png import read_png
from xray_addon.generated import Generated
from xray_addon.progress import Progress
from xray_addon.surface import Surface
from xray_addon.systems import SYSTEMS
from xray_addon.systems.system import Inputs


def ball(radius: float, steps: int = 12) -> Surface:
    """A closed ball, its colour the direction from its middle."""
    theta = np.linspace(0, np.pi, steps + 1)[1:-1]
    phi = np.linspace(0, 2 * np.pi, 2 * steps, endpoint=False)
    ring = np.stack(
        [
            np.sin(theta)[:, None] * np.cos(phi),
            np.sin(theta)[:, None] * np.sin(phi),
            np.repeat(np.cos(theta)[:, None], len(phi), axis=1),
        ],
        axis=-1,
    )
    vertices = np.concatenate([[[0, 0, 1.0]], ring.reshape(-1, 3), [[0, 0, -1.0]]]) * radius
    faces = []
    count, last = len(phi), len(vertices) - 1
    for j in range(count):
        k = (j + 1) % count
        faces += [(0, 1 + j, 1 + k), (last, last - count + k, last - count + j)]
        for i in range(len(theta) - 1):
            a, b = 1 + i * count, 1 + (i + 1) * count
            faces += [(a + j, b + j, b + k), (a + j, b + k, a + k)]
    faces = np.array(faces)
    colors = (vertices / radius * 0.5 + 0.5)[faces]
    return Surface(vertices, faces, corner_colors=colors)


class FakeGenerator(Generator):
    system = SYSTEMS["xray"]
    device = "cpu"

    def run(self, inputs: Inputs, settings: Any, progress: Any) -> Generated:
        name = Path(inputs.image).stem
        if name == "bad":
            raise XRayError("unreadable_image", "The image is bad.", "Choose a good one.")
        for step in range(200 if name == "slow" else 3):
            progress(Progress("sample", step, 200 if name == "slow" else 3, "sampling"))
            time.sleep(0.02)
        steps = {"big": 316, "usual": 190}.get(name, 12)
        size = 256 if name == "usual" else 32
        chosen, distance = {}, getattr(settings, "distance", 0.0)  # Slice3D has none
        if name == "photo" and not distance:
            distance = 4.25
            chosen = {"distance": distance, "upright": "always"}
        surface = ball(0.3 + 0.1 * settings.seed + 0.04 * distance, steps)
        camera = Camera.look_at((0.0, -1.5, 0.0), width=size, height=size)
        xray = cast(surface, camera, 4, backend="numpy")
        return Generated(surface, xray, camera, chosen=chosen)


class FakeSlice3D(FakeGenerator):
    system = SYSTEMS["slice3d"]

    def run(self, inputs: Inputs, settings: Any, progress: Any) -> Generated:
        made = super().run(inputs, settings, progress)
        names = sorted(path.stem for path in Path(inputs.image).parent.glob("[XYZ]_?.png"))
        sheet = np.full((30, 40, 3), len(names), dtype=np.uint8)
        return Generated(made.surface, None, made.camera, {"slices": sheet})


class FakeRenderDiffusion(FakeGenerator):
    """A ball of t_r rings whose notes say what it was made from."""

    system = SYSTEMS["renderdiffusion"]

    def run(self, inputs: Inputs, settings: Any, progress: Any) -> Generated:
        progress(Progress("predict", 1, 1, "Denoising the picture"))
        notes = ["Generated."]
        if inputs.image is not None:
            image = read_png(Path(inputs.image))
            notes = [f"Reconstructed from {image.shape[1]} x {image.shape[0]} pixels."]
        if inputs.mask is not None:
            white = (read_png(Path(inputs.mask))[..., 0] > 127).mean()
            notes.append(f"White: {white:.0%}.")
        camera = Camera.look_at((0.0, -2.0, 0.0), width=32, height=32)
        pictures = {name: np.full((8, 8, 3), 99, np.uint8) for name in ("image", "orbit")}
        surface = ball(0.3 + 0.1 * settings.seed, 4 + settings.t_r)
        return Generated(surface, None, camera, pictures, notes)


def cut_object(image: Any, settings: Any, _progress: Any) -> Any:
    """A square, and the settings that it was asked with."""
    if Path(image).stem == "bad":
        raise XRayError("no_cutout", "There is no object.", "Choose a good one.")
    rgba = np.zeros((64, 64, 4), dtype=np.uint8)
    rgba[16:-16, 16:-16] = 255
    return SimpleNamespace(rgba=rgba, how=f"{settings.remove_background}, margin {settings.margin}")


# Blender's half of the tests has no Pillow; where it lies beside, it is not used either.
sys.modules["PIL"] = None
stand_in("runtime.images.cutout", cut_object=cut_object, online_allowed=lambda: False)
stand_in("runtime.images.framing", frame=lambda rgba, *_, **__: rgba)
stand_in("runtime.renderdiffusion.generator", load=lambda *_: FakeRenderDiffusion())
stand_in("runtime.slice3d.generator", load=lambda *_: FakeSlice3D())
stand_in("runtime.xray.generator", load=lambda *_: FakeGenerator())
sys.exit(serve())
