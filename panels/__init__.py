"""What X-Ray shows: the sidebar, menu entries and preferences."""


def register() -> None:
    """Register the panels, menus and preferences."""
    from ..operators.registration import register_classes
    from . import menus, preferences, sidebar

    register_classes(preferences.CLASSES + sidebar.CLASSES + menus.CLASSES)
    menus.register()


def unregister() -> None:
    """The inverse of `register`."""
    from ..operators.registration import unregister_classes
    from . import menus, preferences, sidebar

    menus.unregister()
    unregister_classes(preferences.CLASSES + sidebar.CLASSES + menus.CLASSES)
