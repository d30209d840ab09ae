"""The published X-Ray recipe: from the network's frames to points.

As in the code of arXiv 2404.14329: eight channels per layer (depth, normal x y z, red green blue,
hit), all in [-1, 1]; rays through the pixels' corners (`Camera(pixel_offset=0)`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .camera import Camera
from .xray import Points, XRay

NEAR = 0.6
FAR = 1.8
CHANNELS = 8


def frames_to_xray(
    frames: ArrayLike, *, near: float = NEAR, far: float = FAR, use_hit: bool = False
) -> XRay:
    """Decode the hits (L, H, W) of `frames` (L, 8, H, W).

    Values are clamped to [-1, 1]. A layer has no hit where its depth is not between `near` and
    `far`, where it is nearer than the layer in front of it and, with `use_hit` (the published
    high-resolution decode), where its hit channel is not positive.

    Raises ValueError for a wrong shape, values that are not finite, or near >= far.
    """
    frames = np.asarray(frames, dtype=np.float32)
    if frames.ndim != 4 or frames.shape[1] != CHANNELS:
        raise ValueError(f"frames must be (layers, {CHANNELS}, H, W), got {frames.shape}")
    if not np.isfinite(frames).all():
        raise ValueError("frames hold values that are not finite")
    if not near < far:
        raise ValueError(f"near must be less than far, got {near} and {far}")
    frames = np.clip(frames, -1.0, 1.0)
    distance = (frames[:, 0] * 0.5 + 0.5) * (far - near) + near
    hit = (distance > near) & (distance < far)
    # The order is checked on the original depths, before any hits are removed.
    kept = np.where(hit, distance, 0.0)
    hit[1:] &= kept[1:] >= kept[:-1]
    if use_hit:
        hit &= frames[:, 7] > 0
    normal = np.moveaxis(frames[:, 1:4], 1, -1)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    normal = normal / np.maximum(length, 1e-12)
    color = np.moveaxis(frames[:, 4:7], 1, -1) * 0.5 + 0.5
    return XRay(np.where(hit, distance, 0.0), normal, color)


def decode_published(
    frames: ArrayLike,
    camera: Camera,
    *,
    near: float = NEAR,
    far: float = FAR,
    use_hit: bool = False,
) -> Points:
    """Decode the points of `frames` (L, 8, H, W) in [-1, 1], in world space.

    See `frames_to_xray` for the rules. For the published points pass a camera with
    `pixel_offset=0` and an identity `camera_to_world`; the published script then subtracts
    their mean.
    """
    return frames_to_xray(frames, near=near, far=far, use_hit=use_hit).points(camera)
