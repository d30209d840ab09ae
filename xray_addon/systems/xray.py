"""X-Ray, small: the system that ships."""

from __future__ import annotations

from dataclasses import dataclass

from ..canonical import CANONICAL
from ..settings.base import setting
from ..settings.generate import GenerateSettings
from .system import Output, System


@dataclass
class XRaySettings(GenerateSettings):
    """How X-Ray generates."""

    steps: int = setting(
        0,
        "Sampling steps if hidden parts may vary; 0 means 8, or 1 for weights not trained to "
        "sample; 1 is a single pass without sampling",
        min=0,
        max=1000,
    )
    variation: float = setting(
        0.0,
        "How much hidden parts may vary with the seed: 0 not at all, which gives the smoothest "
        "backs; 1 fully sampled",
        min=0.0,
        max=1.0,
    )
    symmetric: str = setting(
        "auto",
        "'auto' makes the object symmetric if the model is sure of a mirror plane: what is seen of "
        "one side then shapes the other side, too",
        choices=("auto", "off"),
    )


SYSTEM = System(
    name="xray",
    label="X-Ray",
    about="Layers of an object along every ray, from one image; the weights are included",
    paper="https://arxiv.org/abs/2404.14329",
    licence="CC BY 4.0; ships with X-Ray",
    module="runtime.xray",
    settings=XRaySettings,
    outputs=frozenset({Output.XRAY}),
    frame=CANONICAL,
)
