"""The published sampler: 25 Euler steps with Karras sigmas and guidance that grows with depth."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from xray_addon.errors import XRayError, is_out_of_memory

from .denoiser import Denoiser

log = logging.getLogger(__name__)

STEPS = 25
MIN_GUIDANCE, MAX_GUIDANCE = 1.0, 3.0  # of the first and the last layer

_T = TypeVar("_T")


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    scheduler: Any,
    embedding: Tensor,
    image_latents: Tensor,
    noise: Tensor,
    *,
    steps: int = STEPS,
    release: Callable[[], None] = lambda: None,
    on_step: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """Frames (8, 8, S, S), not clamped.

    embedding : (1, 1, D). image_latents : (1, 4, S, S). noise : (1, 8, 8, S, S), unit.
    release : frees other device memory; called if memory runs short.

    Raises XRayError `out_of_memory`.
    """
    device = denoiser.device
    embedding, image_latents = embedding.to(device), image_latents.to(device)
    denoiser.condition(
        torch.cat([torch.zeros_like(embedding), embedding]),
        torch.cat([torch.zeros_like(image_latents), image_latents]),
    )
    set_steps(scheduler, steps, device)
    frames = noise.to(device) * scheduler.init_noise_sigma
    guidance = torch.linspace(MIN_GUIDANCE, MAX_GUIDANCE, denoiser.frames, device=device)
    guidance = guidance.view(1, -1, 1, 1, 1)
    memory_is_short = False
    for number, time in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(torch.cat([frames, frames]), time)
        if not memory_is_short:
            try:
                output = denoiser(scaled, time)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                log.warning("the device is short of memory: continuing with one item at a time")
                memory_is_short = True
        if memory_is_short:
            release()
            output = with_little_memory(partial(denoiser.one_by_one, scaled, time))
        without, given = output.chunk(2)
        guided = without + guidance * (given - without)
        frames = scheduler.step(guided, time, frames).prev_sample
        on_step(number + 1)
    return frames[0]


def set_steps(scheduler: Any, steps: int, device: torch.device | str = "cpu") -> None:
    """Set the sigmas and times of `scheduler` for `steps` steps."""
    with warnings.catch_warnings():
        # diffusers converts tensors to NumPy arrays in a way that NumPy 2 deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        scheduler.set_timesteps(steps, device=device)


def with_little_memory(work: Callable[[], _T]) -> _T:
    """The result of `work`; running out of memory becomes an XRayError with a remedy."""
    try:
        return work()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise XRayError(
            "out_of_memory",
            "The device has too little free memory for X-Ray, even in the smallest pieces.",
            "Close other programs that use it or release the runtime's memory and try again, set "
            "the device to the CPU, or use a checkpoint without an upsampler.",
        ) from error
