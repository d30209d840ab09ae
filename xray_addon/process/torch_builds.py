"""Chooses the build of PyTorch for a machine, and knows its size."""

from __future__ import annotations

import shutil
import subprocess
import sys

from ..errors import XRayError
from .installer import NO_WINDOW

# PyPI's torch for Linux is the CUDA build of several GB. PyTorch's indexes have a build per device.
TORCH_INDEX = "https://download.pytorch.org/whl"
ROCM_TAG = "rocm7.2"
OLDEST_DRIVER = 525  # NVIDIA's first driver for CUDA 12

NEEDED_SPACE = {"cpu": 3_000_000_000, "cuda": 8_000_000_000, "rocm": 8_000_000_000}  # bytes

# Approximate bytes of the wheels for Linux; 0 if unknown.
DOWNLOAD = {"cpu": 400_000_000, "cuda": 2_950_000_000, "rocm": 0}
BUILDS = {"cpu": "CPU", "cuda": "NVIDIA ({})", "rocm": "AMD ({})"}


def cuda_tag(driver: int, capability: float) -> str:
    """The newest of PyTorch's CUDA indexes that a GPU supports.

    driver : NVIDIA's major version. capability : the GPU's compute capability, e.g. 8.6.

    Raises XRayError `driver_too_old`.
    """
    if driver < OLDEST_DRIVER:
        raise XRayError(
            "driver_too_old",
            f"The NVIDIA driver {driver} is too old.",
            f"Update it to {OLDEST_DRIVER} or newer, or install for the CPU.",
        )
    if capability < 7.5:
        return "cu126"  # the last one that supports these GPUs
    if driver >= 580:
        return "cu130"
    return "cu129" if capability >= 10 else "cu126"


def torch_index(device: str) -> str | None:
    """PyTorch's index for `device`; None means PyPI, which has the only build for macOS."""
    if sys.platform == "darwin":
        return None
    if device == "rocm":
        return f"{TORCH_INDEX}/{ROCM_TAG}"
    nvidia = nvidia_driver() if device in ("auto", "cuda") else None
    if nvidia is not None:
        return f"{TORCH_INDEX}/{cuda_tag(*nvidia)}"
    # CUDA without a GPU, e.g. when a disk image is prepared: the build that most drivers support.
    return f"{TORCH_INDEX}/cu126" if device == "cuda" else f"{TORCH_INDEX}/cpu"


def nvidia_driver() -> tuple[int, float] | None:
    """The driver's major version and the GPUs' lowest compute capability; None without a driver."""
    rows = [line.split(",") for line in query_nvidia("driver_version,compute_cap").splitlines()]
    try:
        return int(rows[0][0].split(".")[0]), min(float(row[1]) for row in rows)
    except (ValueError, IndexError):
        return None


def query_nvidia(what: str) -> str:
    """The driver's answer to the query `what`, a line per GPU; "" without a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        return subprocess.run(
            [program, f"--query-gpu={what}", "--format=csv,noheader"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            creationflags=NO_WINDOW,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
