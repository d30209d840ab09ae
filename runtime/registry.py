"""Loads systems by name. Importing this module loads no model and no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from xray_addon.settings.generate import DEFAULT_GENERATOR
from xray_addon.systems import find_system

if TYPE_CHECKING:
    from .generator import Generator


def load(
    name: str = DEFAULT_GENERATOR, checkpoint: str | None = None, device: str = "auto"
) -> Generator:
    """Load the system called `name`.

    checkpoint : a path or a hub id (see `runtime.checkpoints`); None for the system's default.
    device : "auto" tries CUDA, then Apple MPS, then the CPU.

    Raises XRayError: `unknown_generator`, `missing_weights`, `bad_weights`, `no_device`.
    """
    module = importlib.import_module(f"{find_system(name).module}.generator")
    generator: Generator = module.load(checkpoint or None, device)
    return generator
