"""The networks that predict layers, by name."""

from __future__ import annotations

from .base import Network, NetworkConfig
from .stacked import XRayPredictor


def make_network(config: NetworkConfig) -> Network:
    """A new network with random weights."""
    if config.network == "video":
        from .video import VideoPredictor  # diffusers takes seconds to import

        return VideoPredictor(config)
    return XRayPredictor(config)
