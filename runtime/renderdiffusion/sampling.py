"""From noise, an image or a part of one to planes: generation, reconstruction, inpainting.

Sampling is DDIM without added noise (Song et al. 2021), by the clean picture that the network
predicts. An image is reconstructed from what is left of it after t_r steps of noise; inpainting
puts the known pixels, noised as far, in place of the sampled ones at every step (RePaint, Lugmayr
et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xray_addon.camera import Camera
from xray_addon.errors import XRayError
from xray_addon.systems.renderdiffusion import NOISE_STEPS

from . import schedule
from .networks import RenderDiffusion, to_network, to_picture

STEPS = 50

# Step, of how many, and the clean pictures (B, 3, S, S) 0..1 as they seem by then. It may raise.
Report = Callable[[int, int, Tensor], None]
# Standard normal numbers of a shape.
Noise = Callable[[tuple[int, ...]], Tensor]


@dataclass(frozen=True, eq=False)
class Sampled:
    """planes (B, 3, C, N, N): the fields. picture (B, 3, S, S) 0..1: what the cameras see of them
    in front of the background, with the known pixels as they were given where t_r is 0."""

    planes: Tensor
    picture: Tensor


def sample(
    model: RenderDiffusion,
    cameras: Sequence[Camera],
    *,
    image: Tensor | None = None,
    known: Tensor | None = None,
    t_r: int = 0,
    steps: int = STEPS,
    noise: Noise,
    report: Report = lambda *_: None,
) -> Sampled:
    """Fields for a camera each.

    Without an image they are generated. With an image (B, 3, S, S), 0..1 on the model's
    background, they are reconstructed: with t_r 0 by one pass at the clean image, otherwise
    from the image after t_r of 1,000 steps of noise. With `known` (B, 1, S, S) too, True where the
    image is to stay, the rest is made anew from noise: all 1,000 steps, in which the known pixels
    are put in place down to step t_r. With t_r 0 the picture then has them exactly.

    steps : of the sampling, at most as many as there is noise for; each is a pass of the network.

    Raises XRayError `bad_settings` for a t_r that is not 0 to 1,000, `camera_inside`.
    """
    if not 0 <= t_r <= NOISE_STEPS:
        raise XRayError(
            "bad_settings",
            f"t_r must be 0 to {NOISE_STEPS}, got {t_r}.",
            "0 keeps closest to the image, 40 copes with images unlike the training's.",
        )
    if steps < 1:
        raise XRayError("bad_settings", f"steps must be 1 or more, got {steps}.", "50 are enough.")
    size = model.config.image_size
    shape = (len(cameras), 3, size, size)
    clean = None if image is None else to_network(image)

    def seen(noisy: Tensor, time: Tensor, last: Tensor | None) -> tuple[Tensor, Tensor]:
        planes = model.planes(noisy, time, last)
        return planes, to_network(model.render(planes, cameras).color)

    def at(step: int) -> Tensor:
        return torch.full((len(cameras),), step, device=model.device)

    with torch.inference_mode():
        if clean is not None and known is None and t_r == 0:
            report(0, 1, to_picture(clean))
            planes, estimate = seen(clean, at(0), None)
            report(1, 1, to_picture(estimate))
            return Sampled(planes, to_picture(estimate))
        begin = t_r if clean is not None and known is None else NOISE_STEPS
        times = schedule.sampling_times(begin, steps)
        noisy = noise(shape).to(model.device)
        if clean is not None and known is None:
            noisy = schedule.noised(clean, noisy, at(begin))
        estimate = None
        for number, step in enumerate(times):
            if clean is not None and known is not None and step >= t_r:
                there = schedule.noised(clean, noise(shape).to(model.device), at(step))
                noisy = torch.where(known, there, noisy)
            planes, estimate = seen(noisy, at(step), estimate)
            report(number + 1, len(times), to_picture(estimate))
            if number + 1 < len(times):
                rest = schedule.noise_in(noisy, estimate, at(step))
                noisy = schedule.noised(estimate, rest, at(times[number + 1]))
        assert estimate is not None
        picture = to_picture(estimate)
        if image is not None and known is not None and t_r == 0:
            picture = torch.where(known, image, picture)
        return Sampled(planes, picture)
