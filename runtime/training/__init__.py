"""`python -m runtime train`: the command line over the generators' training."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xray_addon.errors import XRayError
from xray_addon.files.json_files import read_json
from xray_addon.files.json_schema import plain, table_of
from xray_addon.progress import ProgressCallback, ignore_progress

from ..torch_helpers.devices import choose_device
from . import parallel
from .configs import LARGEST

# The module of each model that can be trained. It has a `TrainingConfig`, and `train`.
TRAINERS = {
    "xray": "..xray.training",
    "triposr": "..triposr.training",
    "xray-paper": "..xray_paper.training",
    "segmentation": "..segmentation.training",
}


def main(
    arguments: argparse.Namespace, tell: Callable[[str], None], progress: ProgressCallback
) -> int:
    """Train as `arguments` say; 0 when the run ended by itself. Raises XRayError, `Cancelled`."""
    config = Path(arguments.config)
    module = trainer_module(config)
    with parallel.joined(choose_device(getattr(arguments, "device", "auto"))) as device:
        if parallel.processes() > 1 and module.__name__ != "runtime.xray.training":
            raise XRayError(
                "bad_settings",
                f"What {config} describes trains in one process only.",
                "Start it with python, not with torchrun.",
            )
        trainer = module.train(
            module.TrainingConfig.read(config),
            Path(arguments.data),
            Path(arguments.out),
            minutes=arguments.minutes,
            resume=arguments.resume,
            device=device,
            progress=progress if parallel.rank() == 0 else ignore_progress,
        )
        if parallel.rank():
            return 0
    tell(f"{trainer.samples} samples in {trainer.seconds / 60:.1f} min, weights in {arguments.out}")
    return 0


def trainer_module(config: Path) -> Any:
    """The module that trains what the configuration's "generator" names; "xray" by default.

    Raises XRayError `unknown_generator`. What else is wrong with the file is for that module to
    say.
    """
    try:
        values = read_json(config, table_of(plain), largest=LARGEST)
    except (OSError, ValueError):
        values = {}
    name = values.get("generator", "xray")
    if not isinstance(name, str) or name not in TRAINERS:
        raise XRayError(
            "unknown_generator",
            f"{config} is for the generator {name!r}, which cannot be trained.",
            f"Choose one of: {', '.join(TRAINERS)}.",
        )
    return importlib.import_module(TRAINERS[name], __package__)
