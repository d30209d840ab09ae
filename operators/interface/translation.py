"""Texts in the user's language, where a translation of them is registered with Blender."""

from __future__ import annotations

from typing import Any

import bpy

_look_up: Any = bpy.app.translations.pgettext_iface  # the stubs know no result of it


def translated(text: str) -> str:
    """`text` in the interface's language; as it is where there is no translation."""
    return str(_look_up(text))
