"""The real server with a generator that needs no weights: a coloured ball and its X-Ray.

The image's name chooses what happens: "slow" takes its time, "bad" fails,
"big" has 200,000 vertices.
"""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from runtime import registry
from runtime.server import serve
from xray_addon.camera import Camera
from xray_addon.casting import cast
from xray_addon.errors import XRayError
from xray_addon.generated import Generated
from xray_addon.progress import Progress
from xray_addon.surface import Surface


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


class FakeGenerator:
    name = "xray"
    device = "cpu"

    def generate(self, image: Any, settings: Any, progress: Any = None) -> Generated:
        name = Path(image).stem
        if name == "bad":
            raise XRayError("unreadable_image", "The image is bad.", "Choose a good one.")
        for step in range(200 if name == "slow" else 3):
            progress(Progress("sample", step, 200 if name == "slow" else 3, "sampling"))
            time.sleep(0.02)
        surface = ball(0.3 + 0.1 * settings.seed, 316 if name == "big" else 12)
        camera = Camera.look_at((0.0, -1.5, 0.0), width=32, height=32)
        return Generated(surface, cast(surface, camera, 4, backend="numpy"), camera)


class FakeIntake(ModuleType):
    """Cuts out a square; Blender's environment has not what the real one needs."""

    def cut_object(self, image: Any, settings: Any, _progress: Any) -> Any:
        rgba = np.zeros((64, 64, 4), dtype=np.uint8)
        if Path(image).stem == "bad":
            raise XRayError("no_cutout", "There is no object.", "Choose a good one.")
        edge = 16 - round(settings.margin)
        rgba[edge:-edge, edge:-edge] = 255
        return SimpleNamespace(rgba=rgba, how=settings.remove_background)

    def frame(self, rgba: Any, _size: int, *, fill: float) -> Any:
        assert 0 < fill < 1
        return rgba

    def release_rembg(self) -> None:
        pass


if find_spec("PIL") is None:
    sys.modules["runtime.images.intake"] = FakeIntake("runtime.images.intake")
registry.GENERATORS["xray"] = lambda _checkpoint, _device: FakeGenerator()
sys.exit(serve())
