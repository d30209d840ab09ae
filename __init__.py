"""X-Ray: see objects as layers. The Blender extension's door; all else is in the sub-packages."""


def register() -> None:
    """Called by Blender when the extension is enabled."""
    from . import operators, panels

    operators.register()
    panels.register()


def unregister() -> None:
    """Called by Blender when the extension is disabled; leaves nothing behind."""
    from . import operators, panels

    panels.unregister()
    operators.unregister()
