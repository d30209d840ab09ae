"""Converts the network's prediction to layers at the resolution of the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from xray_addon.camera import Camera
from xray_addon.canonical import (
    CANONICAL,
    FAR,
    NEAR,
    Frame,
    canonical_camera,
    change_of_depths,
)
from xray_addon.systems.xray import FARTHEST
from xray_addon.xray import XRay

from .enlarging import enlarge_frames
from .networks.base import Prediction

# Minimum distance between a layer and the next (frame units).
MIN_THICKNESS = 0.005
# An object is closed if at least this share of its visible pixels has a back.
CLOSED_SHARE = 0.7

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Layers:
    """The prediction at the pixels of the image.

    depth : (L, H, W) along the rays, 0 where unknown; never decreases from layer to layer. normal,
    color : (L, H, W, 3), of unit length and 0..1. share : (L, H, W) likelihood of a hit, 0..1.
    outline : (H, W) the pixels that the object covers. closed : whether layers come in pairs, one
    where a ray enters and one where it leaves; the two of a pair have the same likelihood.
    """

    depth: Floats
    normal: Floats
    color: Floats
    share: Floats
    outline: NDArray[np.bool_]
    closed: bool

    def xray(self) -> XRay:
        """The likely hits."""
        likely = np.logical_and.accumulate((self.share > 0.5) & (self.depth > 0), axis=0)
        return XRay(np.where(likely, self.depth, 0), self.normal, self.color)


def extended(values: Floats, known: NDArray[np.bool_]) -> Floats:
    """`values` (H, W, ...), with each unknown pixel replaced by the nearest known one."""
    if known.all() or not known.any():
        return values
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return values[tuple(nearest)]


def frame_from(distance: float) -> Frame:
    """The frame seen from `distance` lengths of the object across the image.

    Cameras nearer than the canonical one are taken for it, and those farther away than `FARTHEST`
    for that.
    """
    return CANONICAL.from_afar(max(min(distance, FARTHEST) / CANONICAL.distance_in_lengths, 1.0))


@torch.no_grad()
def decode(prediction: Prediction, alpha: Tensor, camera: Camera) -> Layers:
    """The layers of the first item in the prediction's batch.

    alpha : (H, W) of the framed image, 0..1; it gives the outline. camera : H x W, of the layers.
    """
    frames = prediction.frames[:1].float()  # (1, L, 8, S, S)
    logit, closed = _pair(frames[0, :, 7:])
    frames = torch.cat([frames[:, :, :7].clamp(-1, 1), logit[None]], dim=2)
    frames, known = enlarge_frames(frames, alpha.shape[-1])
    values, share = frames[0, :, :7], frames[0, :, 7].sigmoid()
    outline = alpha > 0.5
    # A closed object's back has the same outline as its front.
    share[: 2 if closed else 1] = outline.float()
    # A layer has values only where all layers before it have some, and lies behind them.
    there = known[0, :, 0].float().cumprod(dim=0) > 0
    depth = (values[:, 0] * 0.5 + 0.5) * (FAR - NEAR) + NEAR
    least = MIN_THICKNESS * torch.arange(len(depth), device=depth.device).view(-1, 1, 1)
    depth = (depth - least).cummax(dim=0).values + least
    pixels = np.indices(alpha.shape)
    change = change_of_depths(canonical_camera(len(alpha)), camera, *pixels)
    factor, offset = (torch.from_numpy(values).to(depth) for values in change)
    return Layers(
        ((depth * factor + offset) * there).cpu().numpy(),
        functional.normalize(values[:, 1:4], dim=1).movedim(1, -1).cpu().numpy(),
        (values[:, 4:7].clamp(-1, 1) * 0.5 + 0.5).movedim(1, -1).cpu().numpy(),
        share.cpu().numpy(),
        outline.cpu().numpy(),
        closed,
    )


def _pair(logit: Tensor) -> tuple[Tensor, bool]:
    """Give both layers of each pair of a closed object their mean logit.

    logit : (L, 1, S, S). Returns the logits and whether the object is closed. The logits of a
    mostly open object (a leaf, a sheet) do not change.
    """
    hit = logit > 0
    if hit[1].sum() < CLOSED_SHARE * hit[0].sum() or len(logit) % 2:
        return logit, False
    pairs = logit.unflatten(0, (-1, 2)).mean(dim=1)
    return pairs.repeat_interleave(2, dim=0), True
