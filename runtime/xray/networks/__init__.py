"""The networks that predict layers, by name."""

from __future__ import annotations

from dataclasses import replace

from torch.nn import functional

from ...torch_helpers.network_configs import differences
from .base import Network, NetworkConfig
from .stacked import XRayPredictor


def make_network(config: NetworkConfig) -> Network:
    """A new network with random weights."""
    if config.network == "video":
        from .video import VideoPredictor  # diffusers takes seconds to import

        return VideoPredictor(config)
    return XRayPredictor(config)


def adapted(model: Network, config: NetworkConfig) -> Network:
    """A network of `config` that starts with the weights of `model` and predicts the same.

    Its learned places are resized to frames of another size. It can be told the lens even if
    `model` is not, and have more blocks at the coarsest level; at first these change nothing.

    Raises ValueError if the networks differ in anything else.
    """
    before = model.config
    config = replace(config, lens=config.lens or before.lens)
    blocks = before.blocks
    if config.network == "stacked":
        blocks = (*blocks[:-1], max(blocks[-1], config.blocks[-1]))
    possible = replace(
        before,
        resolution=config.resolution,
        image_resolution=config.image_resolution,
        lens=config.lens,
        blocks=blocks,
    )
    other = [name for name in vars(config) if getattr(config, name) != getattr(possible, name)]
    if other:
        raise ValueError(differences(before, config, other))
    network = make_network(config)
    state = network.state_dict()
    # The coarsest level ends with a normalisation, after an attention and a block each.
    last, moved = (f"middle.{2 * count[-1]}." for count in (before.blocks, blocks))
    for name, tensor in model.state_dict().items():
        if name.startswith("places"):
            tensor = functional.interpolate(
                tensor[None], size=state[name].shape[1:], mode="bilinear", antialias=True
            )[0]
        state[name.replace(last, moved)] = tensor
    network.load_state_dict(state)
    return network.to(next(model.parameters()).device)
