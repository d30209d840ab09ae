"""The Layers panel: the layers of the active object."""

from __future__ import annotations

from typing import Any

import bpy

from ..operators.interface.drawing import draw_properties
from ..operators.interface.translation import translated
from ..operators.layers.layers import layer_objects, layers_of
from ..operators.layers.ops import XRAY_OT_rebuild, XRAY_OT_show_picture, set_from_layers
from .widgets import SidebarPanel, draw_progress, draw_text

# Layers with fewer hits than this share of the largest layer's are strays, and not listed.
LEAST_SHARE = 0.001


class XRAY_PT_layers(SidebarPanel):
    """The layers of the active object."""

    bl_label = "Layers"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Require an object that came from an X-Ray."""
        obj: Any = context.object
        return obj is not None and ("xray_hits" in obj or layers_of(obj) is not None)

    def draw(self, context: bpy.types.Context) -> None:
        """Draw sliders and an eye for each layer object; without objects, the hits per layer."""
        obj: Any = context.object
        collection = layers_of(obj)
        column = self.layout.column(align=True)
        if collection is None:
            hits_per_layer = list(obj["xray_hits"])
            for layer, hits in enumerate(hits_per_layer):
                if hits >= LEAST_SHARE * max(hits_per_layer):
                    _draw_layer(column.row(), layer, hits)
            if "xray_file" in obj:
                self.layout.operator_menu_enum(
                    XRAY_OT_show_picture.bl_idname, "channel", text="Show Picture", icon="IMAGE"
                )
            generated = "xray_settings" in obj
            made = "Press Keep Layers for This" if generated else "Import as layers"
            draw_text(self.layout, context, f"{made} to peel and edit them.")
            return
        column.prop(collection.xray, "visible", toggle=True)
        if not collection.hide_viewport:
            draw_properties(self.layout, collection.xray, ("peel", "explode"))
            column = self.layout.column(align=True)
            shown = layer_objects(collection)
            most = max((len(layer.data.vertices) for layer in shown), default=0)
            for layer in shown:
                if len(layer.data.vertices) < LEAST_SHARE * most:
                    continue
                row = column.row()
                row.prop(layer, "hide_viewport", text="", emboss=False)
                _draw_layer(row, layer["xray_layer"], len(layer.data.vertices))
        draw_properties(self.layout, collection.xray, ("target_faces",))
        column = self.layout.column()
        button = column.operator(
            XRAY_OT_rebuild.bl_idname, text="Rebuild Mesh", icon="FILE_REFRESH"
        )
        set_from_layers(button, context)
        column.operator_menu_enum(
            XRAY_OT_show_picture.bl_idname, "channel", text="Show Picture", icon="IMAGE"
        )
        draw_progress(self.layout, context, XRAY_OT_rebuild)


def _draw_layer(row: Any, layer: int, hits: int) -> None:
    row.label(text=translated("Layer {}").format(layer + 1))
    row.label(text=translated("1 hit" if hits == 1 else "{:,} hits").format(hits))


CLASSES: tuple[type[Any], ...] = (XRAY_PT_layers,)
