"""Chooses the device that a model runs on and its precision."""

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


def flush_denormals() -> None:
    """Let the CPU round denormal numbers to 0 from now on.

    Small activations become denormal, and CPUs compute with those ten times more slowly.
    """
    torch.set_flush_denormal(True)


def training_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where `device` has instructions for it, else float32.

    Without them a CPU emulates bfloat16: a training step took ten times as long on an AMD Zen 3.
    """
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        known = torch.cpu.get_capabilities()
        fast = known.get("avx512_bf16", False) or known.get("amx_bf16", False)
    else:
        fast = False
    return torch.bfloat16 if fast else torch.float32
