"""From a network's prediction to layers at the image's pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from xray_addon.canonical import FAR, NEAR
from xray_addon.xray import XRay

from .enlarging import enlarge_frames
from .networks.base import Prediction

# Least distance between a layer and the next (frame units): no object is thinner than paper.
MIN_THICKNESS = 0.005
# An object of which this share of the seen pixels has a back is closed: its layers come in pairs.
CLOSED_SHARE = 0.7

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Layers:
    """What is predicted at the image's pixels.

    depth : (L, H, W) along the rays, 0 where unknown; a pixel's do not decrease. normal, color :
    (L, H, W, 3), of unit length and 0..1. share : (L, H, W) the likelihood 0..1 of a hit. outline :
    (H, W) the pixels that the object covers. closed : whether layers come in pairs, where a ray
    enters and leaves; those of a pair have one likelihood.
    """

    depth: Floats
    normal: Floats
    color: Floats
    share: Floats
    outline: NDArray[np.bool_]
    closed: bool

    def xray(self) -> XRay:
        """The hits that are likely."""
        likely = np.logical_and.accumulate((self.share > 0.5) & (self.depth > 0), axis=0)
        return XRay(np.where(likely, self.depth, 0), self.normal, self.color)


@torch.no_grad()
def decode(prediction: Prediction, alpha: Tensor) -> Layers:
    """The layers that a prediction stands for; the first of its batch.

    alpha : (H, W) of the framed image, 0..1: the outline is the image's own.
    """
    frames = prediction.frames[:1].float()  # (1, L, 8, S, S)
    logit, closed = _pair(frames[0, :, 7:])
    frames = torch.cat([frames[:, :, :7].clamp(-1, 1), logit[None]], dim=2)
    frames, known = enlarge_frames(frames, alpha.shape[-1])
    values, share = frames[0, :, :7], frames[0, :, 7].sigmoid()
    outline = alpha > 0.5
    # A closed object's back has the same outline as its front.
    share[: 2 if closed else 1] = outline.float()
    # A layer has values only where those before it have some, and lies behind them.
    there = known[0, :, 0].float().cumprod(dim=0) > 0
    depth = (values[:, 0] * 0.5 + 0.5) * (FAR - NEAR) + NEAR
    least = MIN_THICKNESS * torch.arange(len(depth), device=depth.device).view(-1, 1, 1)
    depth = (depth - least).cummax(dim=0).values + least
    return Layers(
        (depth * there).cpu().numpy(),
        functional.normalize(values[:, 1:4], dim=1).movedim(1, -1).cpu().numpy(),
        (values[:, 4:7].clamp(-1, 1) * 0.5 + 0.5).movedim(1, -1).cpu().numpy(),
        share.cpu().numpy(),
        outline.cpu().numpy(),
        closed,
    )


def _pair(logit: Tensor) -> tuple[Tensor, bool]:
    """Make entering and leaving a closed object agree: each pair of layers shares its logit.

    logit (L, 1, S, S). Returns the logits and whether the object is closed; those of an object
    that is mostly open (a leaf, a sheet) are left as they are.
    """
    hit = logit > 0
    if hit[1].sum() < CLOSED_SHARE * hit[0].sum() or len(logit) % 2:
        return logit, False
    pairs = logit.unflatten(0, (-1, 2)).mean(dim=1)
    return pairs.repeat_interleave(2, dim=0), True
