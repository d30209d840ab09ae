"""Blender operators and the command line. They only call the plain functions beside them."""

from __future__ import annotations

from typing import Any


def register() -> None:
    """Register the operators and the command line."""
    from . import command, properties
    from .interface.registration import register_classes
    from .layers import shown
    from .omage import editor

    register_classes(_classes())
    properties.register()
    shown.register()
    editor.register()
    command.register()


def unregister() -> None:
    """Cancel all tasks, stop the runtime and undo everything that `register` did."""
    from . import command, properties
    from .interface import icons
    from .interface.registration import unregister_classes
    from .layers import shown
    from .omage import editor
    from .runtime import service
    from .tasks import jobs

    jobs.shut_down()
    service.shut_down()
    icons.unregister()
    command.unregister()
    editor.unregister()
    shown.unregister()
    properties.unregister()
    unregister_classes(_classes())


def _classes() -> tuple[type[Any], ...]:
    from .dataset import ops as ops_dataset
    from .dataset import ops_capture, ops_preview
    from .generate import ops as ops_generate
    from .generate import ops_cutout, ops_drop, ops_mask, ops_result
    from .layers import ops as ops_layers
    from .layers import ops_import
    from .omage import ops as ops_omage
    from .runtime import ops as ops_runtime
    from .runtime import ops_weights
    from .slices import ops as ops_slices
    from .tasks import ops as ops_queue

    modules = (
        ops_capture,
        ops_cutout,
        ops_dataset,
        ops_drop,
        ops_generate,
        ops_import,
        ops_layers,
        ops_mask,
        ops_omage,
        ops_queue,
        ops_result,
        ops_runtime,
        ops_slices,
        ops_weights,
        ops_preview,
    )
    return tuple(cls for module in modules for cls in module.CLASSES)
