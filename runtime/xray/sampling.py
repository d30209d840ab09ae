"""Predicts layers from an image, as the mean over the image and its mirror image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from xray_addon.canonical import FOV_X

from .networks.base import Network, Prediction

NOISES = 4  # predictions from this many noises are averaged


def noised(frames: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Clean `frames` (B, L, 8, S, S) with noise added to the hidden layers, for `time` (B,).

    time : share of the signal, 0..1. The visible layer stays clean: the denoiser predicts hidden
    layers that fit it.
    """
    share = time[:, None, None, None, None]
    hidden = share * frames[:, 1:] + (1 - share) * noise[:, 1:]
    return torch.cat([frames[:, :1], hidden], dim=1)


def mirrored(frames: Tensor) -> Tensor:
    """Frames (B, L, 8, S, S), mirrored left to right."""
    flipped = frames.flip(-1)
    flipped[:, :, 1] *= -1  # x of the normals
    return flipped


def both_ways(
    model: Network,
    image: Tensor,
    frames: Tensor | None = None,
    time: Tensor | None = None,
    *,
    fov_x: float = FOV_X,
) -> Prediction:
    """The mean of the predictions for the image and, mirrored back, for its mirror image.

    fov_x : the camera's horizontal field of view, radians.
    """
    prediction = model(
        torch.cat([image, image.flip(-1)]),
        None if frames is None else torch.cat([frames, mirrored(frames)]),
        None if time is None else time.repeat(2),
        None if fov_x == FOV_X else image.new_full((2 * len(image),), fov_x),
    )
    straight, turned = prediction.frames.chunk(2)
    pose, turned_pose = prediction.pose.chunk(2)
    # Mirroring reverses the roll.
    turned_pose = turned_pose * turned_pose.new_tensor([1.0, -1.0])
    return Prediction((straight + mirrored(turned)) / 2, (pose + turned_pose) / 2)


@torch.no_grad()
def expected(model: Network, image: Tensor, *, fov_x: float = FOV_X) -> Prediction:
    """The visible layer and the pose in one pass, then the expected hidden layers given them.

    The first pass predicts hidden layers, too, but they are blurred, because the visible layer was
    not known yet. So they are predicted again, given the visible layer, and averaged over a few
    fixed noises. The mean does not commit to any one of the possible shapes.
    """
    first = both_ways(model, image, fov_x=fov_x)
    random = torch.Generator().manual_seed(0)
    noise = torch.randn((NOISES, *model.frame_shape), generator=random).to(image)
    seen = noise.repeat(len(image), 1, 1, 1, 1)
    seen[:, :1] = first.clean()[:, :1].repeat_interleave(NOISES, dim=0)
    images = image.repeat_interleave(NOISES, dim=0)
    second = both_ways(model, images, seen, image.new_zeros(len(images)), fov_x=fov_x)
    hidden = second.frames[:, 1:].unflatten(0, (-1, NOISES)).mean(dim=1)
    return Prediction(torch.cat([first.frames[:, :1], hidden], dim=1), first.pose)


@torch.no_grad()
def sample(
    model: Network,
    image: Tensor,
    steps: int,
    generator: torch.Generator,
    *,
    start: float,
    fov_x: float = FOV_X,
    on_step: Callable[[int], None] | None = None,
) -> Prediction:
    """The `expected` layers, then `steps` - 1 denoising steps (DDIM, Song et al. 2021) of the
    hidden ones, starting at time `start` (below 1).

    The visible layer and the pose do not change. The noise is drawn once from `generator`, so the
    result is deterministic given it.
    """
    first = prediction = expected(model, image, fov_x=fov_x)
    if on_step is not None:
        on_step(1)
    visible = first.clean()[:, :1]
    noise = torch.randn(
        (len(image), *model.frame_shape), generator=generator, device=generator.device
    ).to(image)
    for step in range(1, steps):
        time = image.new_full((len(image),), start + (1 - start) * (step - 1) / (steps - 1))
        seen = noised(torch.cat([visible, prediction.clean()[:, 1:]], dim=1), noise, time)
        prediction = both_ways(model, image, seen, time, fov_x=fov_x)
        noise = (seen - float(time[0]) * prediction.clean()) / (1 - float(time[0]))
        if on_step is not None:
            on_step(step + 1)
    frames = torch.cat([first.frames[:, :1], prediction.frames[:, 1:]], dim=1)
    return Prediction(frames, first.pose)
