"""What an X-Ray's layers hold: the panel Layers."""

from __future__ import annotations

from typing import Any

import bpy

from ..operators.layers import layer_objects
from .widgets import SidebarPanel, draw_text


class XRAY_PT_layers(SidebarPanel):
    """The layers of the active object."""

    bl_label = "Layers"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Only objects that came from an X-Ray have layers."""
        obj: Any = context.object
        return obj is not None and ("xray_hits" in obj or "xray_layer" in obj)

    def draw(self, context: bpy.types.Context) -> None:
        """Hits of each layer, with an eye where there is an object for it."""
        layers = layer_objects(context.object)
        column = self.layout.column(align=True)
        if layers:
            for obj in layers:
                row = column.row()
                row.prop(obj, "hide_viewport", text="", emboss=False)
                row.label(text=f"Layer {obj['xray_layer'] + 1}")
                row.label(text=f"{obj['xray_count']:,} hits")
            return
        for layer, hits in enumerate(context.object.get("xray_hits", ())):
            if hits:
                row = column.row()
                row.label(text=f"Layer {layer + 1}")
                row.label(text=f"{hits:,} hits")
        draw_text(self.layout, context, "Import as layers to show and hide them.")


CLASSES: tuple[type[Any], ...] = (XRAY_PT_layers,)
