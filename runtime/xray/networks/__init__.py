"""The networks that predict layers, by name."""

from __future__ import annotations

from dataclasses import replace

from torch.nn import functional

from .base import Network, NetworkConfig
from .stacked import XRayPredictor


def make_network(config: NetworkConfig) -> Network:
    """A new network with random weights."""
    if config.network == "video":
        from .video import VideoPredictor  # diffusers takes seconds to import

        return VideoPredictor(config)
    return XRayPredictor(config)


def at_resolution(
    model: Network, resolution: int, image_resolution: int, mirror_planes: int
) -> Network:
    """`model` for frames of another size: the same weights, its learned places resized; what tells
    mirror planes begins anew if there were others or none, or if the size differs."""
    config = replace(
        model.config,
        resolution=resolution,
        image_resolution=image_resolution,
        mirror_planes=mirror_planes,
    )
    resized = make_network(config)
    size = (model.config.resolution, model.config.mirror_planes)
    same_planes = size == (resolution, mirror_planes)
    there, state = model.state_dict(), resized.state_dict()
    for name, wanted in state.items():
        if name.startswith("places"):
            state[name] = functional.interpolate(
                there[name][None], size=wanted.shape[1:], mode="bilinear", antialias=True
            )[0]
        elif same_planes or not name.startswith("planes_out"):
            state[name] = there[name]
    resized.load_state_dict(state)
    return resized.to(next(model.parameters()).device)
