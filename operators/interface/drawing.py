"""Draws settings in the same way in panels and in the dialogs of operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

# Prefix of the checkbox of a setting that is off at 0.
USE = "use_"


def draw_properties(layout: Any, source: Any, names: Iterable[str]) -> None:
    """Draw a column of properties with their names to the left.

    Those that are off at 0 have a checkbox before their value.
    """
    known = getattr(source, "properties", source).bl_rna.properties  # an operator has them here
    column = layout.column()
    column.use_property_split = True
    column.use_property_decorate = False
    for name in names:
        if not hasattr(source, USE + name):
            column.prop(source, name)
            continue
        row = column.row(heading=known[USE + name].name)
        row.prop(source, USE + name, text="")
        value = row.row()
        value.active = getattr(source, USE + name)
        value.prop(source, name, text="")
