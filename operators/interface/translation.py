"""Texts in the user's language, if a translation is registered with Blender."""

from __future__ import annotations

from typing import Any

import bpy

_look_up: Any = bpy.app.translations.pgettext_iface  # the stubs lack its return type


def translated(text: str) -> str:
    """`text` in the interface's language; unchanged if there is no translation."""
    return str(_look_up(text))
