"""Toy's generator. Tests put it into `runtime/toy/`."""

from __future__ import annotations

from typing import Any

import numpy as np
from xray_addon.systems.toy import SYSTEM, ToySettings

from runtime.generator import Generator
from xray_addon.camera import Camera
from xray_addon.generated import Generated
from xray_addon.progress import Progress, ProgressCallback
from xray_addon.surface import Material, Surface
from xray_addon.systems.system import Inputs


class ToyGenerator(Generator):
    """A fan of triangles, as many as there are corners, whose material depends on the category."""

    system = SYSTEM
    device = "cpu"

    def run(self, inputs: Inputs, settings: ToySettings, progress: ProgressCallback) -> Generated:
        progress(Progress("draw", 0, 1, f"Drawing a {inputs.category}"))
        angle = 2 * np.pi * np.arange(settings.corners) / settings.corners + settings.seed
        rim = np.stack([np.cos(angle), np.zeros_like(angle), np.sin(angle)], axis=1)
        vertices = np.concatenate([np.zeros((1, 3)), rim])
        number = np.arange(settings.corners)
        faces = np.stack([0 * number, 1 + number, 1 + (number + 1) % settings.corners], axis=1)
        grey = np.full((4, 4), 40 * (1 + SYSTEM.categories.index(inputs.category)), np.uint8)
        surface = Surface(
            vertices,
            faces,
            corner_uvs=vertices[faces][..., [0, 2]] * 0.5 + 0.5,
            materials=[
                Material(
                    texture=np.repeat(grey[..., None], 3, axis=2),
                    metallic=1.0,
                    metallic_texture=grey,
                    roughness_texture=255 - grey,
                )
            ],
        )
        picture = np.zeros((8, 8, 3), np.uint8)
        picture[:4] = (255, 0, 0)
        camera = Camera.look_at((0.0, -3.0, 0.0), width=32, height=32)
        return Generated(surface, None, camera, {"sketch": picture})


def load(checkpoint: str | None, device: str) -> Any:
    """The generator; it needs no weights."""
    del checkpoint, device
    return ToyGenerator()
