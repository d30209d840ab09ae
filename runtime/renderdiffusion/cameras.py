"""Finds an image's camera: the direction from which its own field looks most like it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from xray_addon.camera import Camera

from .networks import RenderDiffusion, to_network

AZIMUTHS = 24  # all around
ELEVATIONS = (0.0, 15.0, 30.0, 45.0)  # degrees
SIZE = 16  # px of the compared pictures
ROUNDS = 3  # of refinement, each halving the step


def find_camera(
    model: RenderDiffusion, image: Tensor, alive: Callable[[], None] = lambda: None
) -> Camera:
    """The camera of an image (3, S, S), 0..1 on the model's background, in the object's frame.

    The network does not need it: the field that it makes of an image is oriented like the objects
    of its training. alive : called before each pass; it may raise.
    """
    alive()
    with torch.inference_mode():
        image = image.to(model.device)
        planes = model.planes(to_network(image[None]), torch.zeros(1, device=model.device))
        wanted = functional.adaptive_avg_pool2d(image, SIZE)

        def best(places: Sequence[tuple[float, float]]) -> tuple[float, float]:
            """The azimuth and elevation with the least squared difference."""
            alive()
            cameras = [model.config.camera(*place, SIZE) for place in places]
            seen = model.render(planes, cameras, SIZE, skip_empty=True).color
            return places[int((seen - wanted).square().mean(dim=(1, 2, 3)).argmin())]

        turn = 2 * math.pi / AZIMUTHS
        levels = [math.radians(level) for level in ELEVATIONS]
        azimuth, elevation = best(
            [(number * turn, level) for number in range(AZIMUTHS) for level in levels]
        )
        tilt = levels[1] - levels[0]
        for _ in range(ROUNDS):
            turn, tilt = turn / 2, tilt / 2
            sides = [azimuth + k * turn for k in (-1, 0, 1)]
            heights = [min(max(elevation + k * tilt, levels[0]), levels[-1]) for k in (-1, 0, 1)]
            azimuth, elevation = best(list(product(sides, heights)))
    return model.config.camera(azimuth, elevation)
