"""How a collection of layers is shown and rebuilt, stored in `Collection.xray`."""

from __future__ import annotations

from typing import Any

import bpy

from ...xray_addon.settings.rebuild import RebuildSettings
from ..properties import with_settings
from .layers import mesh_of, place_layers, show_layers


@with_settings(RebuildSettings)
class XRAY_PG_layers(bpy.types.PropertyGroup):
    """How a collection of layers is shown and rebuilt."""

    def _show(self, _context: bpy.types.Context) -> None:
        show_layers(self.id_data, self.peel, self.explode)

    def _is_visible(self) -> bool:
        return not self.id_data.hide_viewport

    def _set_visible(self, visible: bool) -> None:
        self.id_data.hide_viewport = not visible
        # The hits lie exactly on the mesh, so both together flicker.
        mesh = mesh_of(self.id_data)
        if mesh is None:
            return
        place_layers(mesh)
        if mesh.name in bpy.context.view_layer.objects:
            mesh.hide_set(visible)

    visible: bpy.props.BoolProperty(
        name="Show Layers",
        description="Show the collection of layers in the 3D view, in place of their mesh",
        get=_is_visible,
        set=_set_visible,
    )
    peel: bpy.props.IntProperty(
        name="Peel",
        description="Number of nearest layers to hide",
        min=0,
        soft_max=16,
        update=_show,
    )
    explode: bpy.props.FloatProperty(
        name="Explode",
        description="Distance between two layers, in sizes of the object",
        soft_min=0.0,
        soft_max=2.0,
        subtype="FACTOR",
        update=_show,
    )


def register() -> None:
    """Register the group and `Collection.xray`."""
    bpy.utils.register_class(XRAY_PG_layers)
    collection: Any = bpy.types.Collection
    pointer: Any = bpy.props.PointerProperty
    collection.xray = pointer(type=XRAY_PG_layers)


def unregister() -> None:
    """Undo `register`."""
    collection: Any = bpy.types.Collection
    del collection.xray
    bpy.utils.unregister_class(XRAY_PG_layers)
