"""RenderDiffusion: denoises a picture by rendering it from a 3D triplane."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from ..canonical import Frame
from ..settings.base import setting
from ..settings.generate import GenerateSettings
from .system import Need, Output, System

# The camera of the training pictures; azimuth and elevation depend on the object or the settings.
FRAME = Frame(distance=2.0, fov_x=math.radians(40.0), fill=0.65, near=1.2, far=2.8)
NOISE_STEPS = 1000  # of the training


@dataclass
class RenderDiffusionSettings(GenerateSettings):
    """How RenderDiffusion generates."""

    generator: str = setting("renderdiffusion", "What makes the mesh")
    t_r: int = setting(
        0,
        f"How much noise the image gets before it is denoised, in steps of {NOISE_STEPS}: 0 keeps "
        "closest to it; 40 and more copes with images unlike those of the training, at the cost of "
        "detail",
        label="t_r",
        min=0,
        max=NOISE_STEPS,
    )
    steps: int = setting(0, "Steps of the sampling; 0 takes 50", min=0, max=NOISE_STEPS, on=50)
    find_camera: bool = setting(
        True,
        "Find where the image was taken from; otherwise the azimuth and elevation say it",
    )
    azimuth: float = setting(
        0.0,
        "From how many degrees to the right of its front the image shows the object",
        min=-180.0,
        max=180.0,
        unit="degrees",
        only=("find_camera", (False,)),
    )
    elevation: float = setting(
        0.0,
        "How many degrees the image looks down on the object",
        min=-90.0,
        max=90.0,
        unit="degrees",
        only=("find_camera", (False,)),
    )
    grid_resolution: int = setting(
        96,
        "Grid points along each side of the meshed box; fewer are used if the mesh would have "
        "more than three million triangles",
        min=32,
        max=512,
    )
    density_threshold: float = setting(
        8.0, "Density of the field at the surface", min=0.01, max=10_000.0, label="Density"
    )
    texture_size: int = setting(
        0,
        "Width and height of a baked texture in pixels; 0 keeps vertex colours",
        min=0,
        max=8192,
        unit="pixels",
        on=1024,
    )
    orbit_views: int = setting(
        8, "Views around the field that are drawn as a picture; 0 draws none", min=0, max=64, on=8
    )

    def seed_matters(self, given: Collection[str] = ("image",), /) -> bool:
        """Whether noise is drawn: an image at t_r 0 is reconstructed without any."""
        return self.t_r > 0 or "mask" in given or "image" not in given


SYSTEM = System(
    name="renderdiffusion",
    label="RenderDiffusion",
    about="Small, trained on furniture only: from an image, without one, or where a mask is white",
    paper="https://arxiv.org/abs/2211.09869",
    licence="CC BY 4.0; ships with X-Ray",
    module="runtime.renderdiffusion",
    settings=RenderDiffusionSettings,
    image=Need.OPTIONAL,
    mask=Need.OPTIONAL,
    outputs=frozenset({Output.PICTURES}),
    frame=FRAME,
)
