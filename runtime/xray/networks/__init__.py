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


def adapted(
    model: Network, *, resolution: int, image_resolution: int, lens: bool = False
) -> Network:
    """`model` for frames of another size: the same weights, its learned places resized.

    lens : whether it is told the lens even if `model` is not; at first that changes nothing.
    """
    lens = lens or model.config.lens
    config = replace(
        model.config, resolution=resolution, image_resolution=image_resolution, lens=lens
    )
    resized = make_network(config)
    state = resized.state_dict() | model.state_dict()
    for name, wanted in resized.state_dict().items():
        if name.startswith("places"):
            state[name] = functional.interpolate(
                state[name][None], size=wanted.shape[1:], mode="bilinear", antialias=True
            )[0]
    resized.load_state_dict(state)
    return resized.to(next(model.parameters()).device)
