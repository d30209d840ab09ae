"""`python -m runtime train`: the command line over the generators' training."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from xray_addon.progress import ProgressCallback

from .xray.generator import choose_device
from .xray.training import TrainingConfig, train


def main(
    arguments: argparse.Namespace, tell: Callable[[str], None], progress: ProgressCallback
) -> int:
    """Train as `arguments` say; 0 when the run ended by itself. Raises XRayError, `Cancelled`."""
    trainer = train(
        TrainingConfig.read(Path(arguments.config)),
        Path(arguments.data),
        Path(arguments.out),
        minutes=arguments.minutes,
        resume=arguments.resume,
        device=choose_device(arguments.device),
        progress=progress,
    )
    tell(f"{trainer.samples} samples in {trainer.seconds / 60:.1f} min, weights in {arguments.out}")
    return 0
