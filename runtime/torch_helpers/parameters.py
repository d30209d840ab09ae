"""Parameters of networks as they are before training."""

from __future__ import annotations

import torch
from torch import nn


def normal_parameter(*shape: int, std: float = 1.0) -> nn.Parameter:
    """A parameter of normally distributed values.

    On the meta device it only has its shape: to draw values there, torch would import its compiler,
    which takes a second.
    """
    values = torch.empty(shape)
    return nn.Parameter(values if values.is_meta else nn.init.normal_(values, std=std))
