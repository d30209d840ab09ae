"""Blender's operators and command, thin callers of the plain functions beside them."""

from __future__ import annotations

from typing import Any


def register() -> None:
    """Register the operators and the command line."""
    from . import command, properties
    from .registration import register_classes

    register_classes(_classes())
    properties.register()
    command.register()


def unregister() -> None:
    """Cancel what runs, stop the runtime, take back everything `register` did."""
    from . import command, icons, jobs, properties
    from . import runtime_service as service
    from .registration import unregister_classes

    jobs.shut_down()
    service.shut_down()
    icons.unregister()
    command.unregister()
    properties.unregister()
    unregister_classes(_classes())


def _classes() -> tuple[type[Any], ...]:
    from . import (
        ops_capture,
        ops_cutout,
        ops_dataset,
        ops_drop,
        ops_generate,
        ops_import,
        ops_layers,
        ops_queue,
        ops_runtime,
        ops_weights,
        preview,
    )

    modules = (
        ops_capture,
        ops_cutout,
        ops_dataset,
        ops_drop,
        ops_generate,
        ops_import,
        ops_layers,
        ops_queue,
        ops_runtime,
        ops_weights,
        preview,
    )
    return tuple(cls for module in modules for cls in module.CLASSES)
