"""The small X-Ray: the system that ships with the extension."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Self

from ..canonical import CANONICAL
from ..settings.base import setting
from ..settings.generate import GenerateSettings
from .system import Output, System

# Distances of the camera, in lengths of the object.
FARTHEST = 10.0  # from farther away images hardly differ
GUESSED_DISTANCE = 2.0  # for an image of which nothing is known


@dataclass
class XRaySettings(GenerateSettings):
    """How X-Ray generates."""

    steps: int = setting(
        0,
        "Sampling steps if hidden parts may vary; 0 means 8. 1 predicts everything in a single "
        "pass, as weights not trained to sample always do",
        min=0,
        max=1000,
        on=8,
    )
    variation: float = setting(
        0.0,
        "How much hidden parts may vary with the seed: 0 not at all, which gives what is to be "
        "expected; 1 fully sampled",
        min=0.0,
        max=1.0,
        unit="factor",
    )
    distance: float = setting(
        0.0,
        "How far away the image was taken from, in lengths of the object. From near, the back must "
        "be larger than the front to look like this; from afar, as large. 0 asks the photo, if its "
        f"lens is known, or takes {GUESSED_DISTANCE:g}. Values below 1.3 count as 1.3",
        min=0.0,
        max=FARTHEST,
    )
    upright: str = setting(
        "auto",
        "Whether an object that leans is set upright. What the image shows does not change",
        choices={
            "auto": "If it leans back and its outline alone does not look like that",
            "never": "As predicted",
            "always": "However it leans",
        },
    )
    back: str = setting(
        "blended",
        "How the hidden side is coloured",
        choices={
            "blended": "Like what is seen around the same place and at the same height, blurred",
            "mirrored": "Like the image, mirrored: for what looks the same from behind, such as a "
            "vehicle from its side, a house or a tree",
        },
    )

    def seen_from(self, distance: float) -> Self:
        """With that distance, `FARTHEST` at most, unless one was chosen."""
        return self if self.distance else replace(self, distance=min(distance, FARTHEST))

    def seed_matters(self, _given: Collection[str] = ("image",), /) -> bool:
        """Whether hidden parts vary."""
        return self.variation > 0 and self.steps != 1

    def varied(self) -> Self:
        """With hidden parts fully sampled, if they do not vary: then seeds differ most."""
        if self.seed_matters():
            return self
        return replace(self, variation=1.0, steps=0 if self.steps == 1 else self.steps)


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
