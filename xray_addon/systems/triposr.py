"""TripoSR: predicts a triplane field from one image in one pass, and makes a mesh of it."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from ..canonical import FILL, Frame
from ..settings.base import setting
from ..settings.generate import GenerateSettings
from .system import Published, System


@dataclass
class TripoSRSettings(GenerateSettings):
    """How TripoSR generates."""

    generator: str = setting("triposr", "What makes the mesh")
    grid_resolution: int = setting(
        256,
        "Grid points along each side of the meshed box; fewer are used if the mesh would have "
        "more than three million triangles",
        min=32,
        max=512,
    )
    density_threshold: float = setting(
        25.0, "Density of the field at the surface", min=0.01, max=10_000.0, label="Density"
    )
    texture_size: int = setting(
        0,
        "Width and height of a baked texture in pixels; 0 keeps vertex colours",
        min=0,
        max=8192,
        unit="pixels",
        on=1024,
    )

    def seed_matters(self, _given: Collection[str] = ("image",), /) -> bool:
        """It samples nothing."""
        return False


# As in training: a camera with a 40 degree field of view; depths are not limited.
FRAME = Frame(1.9, math.radians(40.0), FILL, near=0.1, far=math.inf)

SYSTEM = System(
    name="triposr",
    label="TripoSR",
    about="A field of density and colour from one image, in one pass",
    paper="https://arxiv.org/abs/2403.02151",
    licence="MIT, 1.7 GB to download",
    module="runtime.triposr",
    settings=TripoSRSettings,
    seeded=False,
    frame=FRAME,
    weights=(
        Published(
            "triposr",
            "stabilityai/TripoSR",
            ("config.yaml", "model.ckpt"),
            1_680_000_000,
            "MIT",
            "https://huggingface.co/stabilityai/TripoSR",
        ),
    ),
    checkpoint="triposr",
)
