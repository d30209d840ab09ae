"""The networks that predict layers, by name."""

from __future__ import annotations

from dataclasses import replace

from torch.nn import functional

from xray_addon.canonical import FOV_X

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

    lens : whether it is to predict the lens even if `model` does not; at first it predicts the
    canonical one.
    """
    lens = lens or model.config.lens
    config = replace(
        model.config, resolution=resolution, image_resolution=image_resolution, lens=lens
    )
    resized = make_network(config)
    state = model.state_dict()
    for name, wanted in resized.state_dict().items():
        if name.startswith("places"):
            state[name] = functional.interpolate(
                state[name][None], size=wanted.shape[1:], mode="bilinear", antialias=True
            )[0]
    if lens and not model.config.lens:
        state["pose_out.weight"] = functional.pad(state["pose_out.weight"], (0, 0, 0, 1))
        state["pose_out.bias"] = functional.pad(state["pose_out.bias"], (0, 1), value=FOV_X)
    resized.load_state_dict(state)
    return resized.to(next(model.parameters()).device)
