"""Shows which published weights are downloaded, with Download buttons; used by several panels."""

from __future__ import annotations

from typing import Any

import bpy

from ..operators.interface.translation import translated
from ..operators.runtime import service
from ..operators.runtime.ops_weights import XRAY_OT_weights_download
from ..xray_addon.systems import PUBLISHED
from ..xray_addon.systems.weights import is_here, megabytes
from .widgets import draw_progress


def draw_missing_weights(layout: Any, context: bpy.types.Context) -> None:
    """Draw a Download button for each weights file that the chosen generator lacks."""
    for name in service.missing_weights(context.scene):
        _draw_download(layout, name)
    draw_progress(layout, context, XRAY_OT_weights_download)


def draw_published_weights(layout: Any, context: bpy.types.Context) -> None:
    """Draw all published weights: downloaded, or with a Download button."""
    column = layout.column(heading="Weights")
    for name in PUBLISHED:
        if is_here(name, service.checkpoint_folder()):
            column.label(text=translated("{} is downloaded").format(name), icon="CHECKMARK")
        elif service.is_available():
            _draw_download(column, name)
    draw_progress(layout, context, XRAY_OT_weights_download)


def _draw_download(layout: Any, name: str) -> None:
    known = PUBLISHED.get(name)
    size = f" ({megabytes(known.size)})" if known else ""
    button = layout.operator(
        XRAY_OT_weights_download.bl_idname,
        text=translated("Download {}...").format(name + size),
        icon="IMPORT",
    )
    button.weights = name
