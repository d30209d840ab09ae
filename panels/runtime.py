"""The Runtime panel: the process that the model runs in."""

from __future__ import annotations

from typing import Any

import bpy

from ..operators.runtime import service
from .widgets import STATES, SidebarPanel, draw_runtime


class XRAY_PT_runtime(SidebarPanel):
    """The process that the model runs in."""

    bl_label = "Runtime"
    bl_parent_id = "XRAY_PT_generate"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        """Require an installed runtime; until then the Generate panel shows the Install button."""
        return service.is_available()

    def draw_header_preset(self, _context: bpy.types.Context) -> None:
        """Show the state even while the panel is closed."""
        self.layout.label(text=STATES[service.state()][0])

    def draw(self, context: bpy.types.Context) -> None:
        """Draw the state and the buttons."""
        draw_runtime(self.layout, context)


CLASSES: tuple[type[Any], ...] = (XRAY_PT_runtime,)
