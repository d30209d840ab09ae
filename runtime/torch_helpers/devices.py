"""Chooses the device that a model runs on."""

from __future__ import annotations

import torch

from xray_addon.errors import XRayError


def choose_device(device: str) -> str:
    """The torch device for a setting. "auto" tries CUDA (or ROCm), Apple MPS, then the CPU.

    Raises XRayError `no_device` if the requested device is not available.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return next(name for name, there in available.items() if there)
    if not available.get(device.partition(":")[0], False):
        raise XRayError(
            "no_device",
            f"Torch finds no device {device!r} here.",
            "Choose 'auto' or 'cpu', or update the graphics driver.",
        )
    return device
