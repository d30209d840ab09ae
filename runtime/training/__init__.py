"""`python -m runtime train`: the command line for training all models."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xray_addon.errors import XRayError
from xray_addon.files.json_files import read_json
from xray_addon.files.json_schema import plain, table_of
from xray_addon.progress import ProgressCallback, ignore_progress
from xray_addon.settings.generate import DEFAULT_GENERATOR
from xray_addon.systems import SYSTEMS

from ..torch_helpers.devices import choose_device
from . import parallel
from .configs import LARGEST

# Trainable models that are not systems, and their packages.
OTHERS = {"segmentation": "runtime.segmentation"}


def main(
    arguments: argparse.Namespace, tell: Callable[[str], None], progress: ProgressCallback
) -> int:
    """Train; returns 0 when the run has finished. Raises XRayError, `Cancelled`."""
    config = Path(arguments.config)
    module = trainer_module(config)
    with parallel.joined(choose_device(arguments.device)) as device:
        if parallel.processes() > 1 and not module.Trainer.several_processes:
            raise XRayError(
                "bad_settings",
                f"The model of {config} can only be trained in one process.",
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
    """The training module for the configuration's "generator" ("xray" by default).

    It is the module `training` of the system's package, with `TrainingConfig`, `Trainer` and
    `train`, which calls `run.train` with that trainer.

    Raises XRayError `unknown_generator`. That module reports all other errors in the file.
    """
    try:
        values = read_json(config, table_of(plain), largest=LARGEST)
    except (OSError, ValueError):
        values = {}
    name = values.get("generator", DEFAULT_GENERATOR)
    modules = trainers()
    if not isinstance(name, str) or name not in modules:
        raise XRayError(
            "unknown_generator",
            f"{config} is for the generator {name!r}, which cannot be trained.",
            f"Choose one of: {', '.join(modules)}.",
        )
    return importlib.import_module(modules[name])


def trainers() -> dict[str, str]:
    """The training modules by model name."""
    packages = {name: system.module for name, system in SYSTEMS.items()} | OTHERS
    places = {
        name: getattr(importlib.import_module(package), "__path__", ())
        for name, package in packages.items()
    }
    return {
        name: f"{packages[name]}.training"
        for name, place in places.items()
        if any(module.name == "training" for module in pkgutil.iter_modules(place))
    }
