"""X-Ray's user interface: the sidebar, menu entries and preferences."""

from __future__ import annotations

from typing import Any


def _classes() -> tuple[type[Any], ...]:
    from . import capture, dataset, generate, layers, menus, omage, preferences, runtime, slices

    # In the order in which the sidebar shows them.
    panels = (generate, runtime, layers, omage, slices, capture, dataset)
    return sum((module.CLASSES for module in (preferences, *panels, menus)), ())


def register() -> None:
    """Register the panels, menus and preferences."""
    from ..operators.interface.registration import register_classes
    from . import menus

    register_classes(_classes())
    menus.register()


def unregister() -> None:
    """Undo `register`."""
    from ..operators.interface.registration import unregister_classes
    from . import menus

    menus.unregister()
    unregister_classes(_classes())
