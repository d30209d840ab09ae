"""Samples planes from noise, an image or a part of one: generation, reconstruction, inpainting.

Sampling is DDIM without added noise (Song et al. 2021), with the clean picture that the network
predicts. Reconstruction starts from the image after t_r steps of noise. Inpainting replaces the
known pixels at every step with their equally noised originals (RePaint, Lugmayr et al. 2022).
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

# Step, number of steps, and the clean pictures (B, 3, S, S) 0..1 predicted so far. It may raise.
Report = Callable[[int, int, Tensor], None]
# Returns standard normal numbers of a shape.
Noise = Callable[[tuple[int, ...]], Tensor]


@dataclass(frozen=True, eq=False)
class Sampled:
    """planes (B, 3, C, N, N): the fields. picture (B, 3, S, S) 0..1: the cameras' view of them in
    front of the background; if t_r is 0, with the known pixels unchanged."""

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
    """Sample one field per camera.

    Without an image the fields are generated. An image (B, 3, S, S), 0..1 on the model's
    background, is reconstructed: if t_r is 0, by one pass on the clean image, otherwise from the
    image after t_r of 1,000 steps of noise. With `known` (B, 1, S, S), True for pixels to keep, the
    rest is generated from noise in all 1,000 steps. The known pixels are inserted down to step t_r;
    if t_r is 0, the picture has them exactly.

    steps : of the sampling, at most the number of noise steps; each is one pass of the network.

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
