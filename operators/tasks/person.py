"""Whether the user is in the middle of something that finished work must not disturb."""

from __future__ import annotations

from typing import Any

import bpy

OURS = "XRAY_OT_"
# Editors that Esc closes or returns to what they showed before.
CLOSED_BY_ESCAPE = frozenset({"FILE_BROWSER", "IMAGE_EDITOR"})

_beside: set[str] = set()  # operators that do not block the user, such as a render


def has_pressed() -> None:
    """Note that the user pressed a button: operators that run now do not block the user."""
    _beside.clear()
    for window in _windows():
        _beside.update(_others(window))


def is_idle() -> bool:
    """Whether mode, selection and view may change: Object Mode, and no operator is running."""
    return bpy.context.mode == "OBJECT" and not is_in_operator()


def is_in_operator() -> bool:
    """Whether a modal operator, not ours, blocks the user, such as a transform."""
    return any(not _beside.issuperset(_others(window)) for window in _windows())


def needs_escape(window: Any, event: Any) -> bool:
    """Whether Blender itself uses Esc where it was pressed."""
    if any(each.screen.is_animation_playing for each in _windows()) or _others(window):
        return True
    return any(
        area.type in CLOSED_BY_ESCAPE
        and 0 <= event.mouse_x - area.x < area.width
        and 0 <= event.mouse_y - area.y < area.height
        for area in window.screen.areas
    )


def _others(window: Any) -> set[str]:
    """The modal operators of a window, except ours."""
    names = {each.bl_idname for each in window.modal_operators}
    return {name for name in names if not name.startswith(OURS)}


def _windows() -> list[Any]:
    manager: Any = bpy.context.window_manager
    return list(manager.windows) if manager else []
